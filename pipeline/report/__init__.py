"""The report page: one self-contained HTML file made of the stages' outs.

outs.py       what the stages wrote, read once
summary.py    what came out, in words: the sentence, the alarms, the figures' meanings
samples.py    which images are shown: uncurated, over time, beside their nearest, in between
plots.py      curves and bars as SVG
markup.py     pieces of HTML
panels.py     one function a panel of the page
page.py       the panels in their order, in page.html
vega_page.py  not of the page: the offline template of `dvc plots show`
"""
