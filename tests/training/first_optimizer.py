"""Importing this imports what a training does, down to what the first optimizer needs."""

import atexit
import gc

import filelock as filelock
import torch

from . import parallel_cases as parallel_cases

torch.set_num_threads(1)
torch.optim.Adam([torch.zeros(1, requires_grad=True)])
# A collection in a fork would copy all that it looks at: 0.3 s of each process.
gc.collect()
gc.freeze()
atexit.register(gc.unfreeze)
