"""From a trained run to a served model.

commands.py     the verbs of `gan`
package.py      a generator as an MLflow model: code, safetensors, JSON
model_code.py   what runs where the model is loaded; it travels with it
provenance.py   what a PNG says of its origin; travels too
fresh.py        a packaged model in a process of its own
gate.py         may a model take the champion's place?
aliases.py      champion, previous, challenger, and moving them
promote.py      register, gate, move
samples.py      samples as files that say where they came from
credentials.py  C2PA: a signature on grids and archives
trace.py        which model made this image?
lineage.py      from a version to everything it came from
verify.py       does every link still hold?
reproduce.py    train it again
serve.py        MLflow's scoring server on an alias
show.py         decisions, links and origins for people to read
export.py       ONNX, TorchScript, torch.export
"""
