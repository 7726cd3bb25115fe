"""What MLflow shows of a run, all of it made from the stages' outs.

A stage first writes its outs, a run record among them; what is in them is then delivered. So a
store that was lost or could not be reached is filled later, by the same code, from the same files.

    record.py    what a run was: written beside a stage's outs
    store.py     where the MLflow store is, made once
    runs.py      one run in the store: found by its key, filled without doubling anything
    views.py     what the UI says of them: notes, and a view of the runs
    deliver.py   from the outs to the store; what is kept back while it cannot be reached
    live.py      curves and pictures while a training runs
"""
