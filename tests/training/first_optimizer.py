"""Importing this imports what a training does, down to what the first optimizer needs."""

import torch

from . import parallel_cases as parallel_cases

torch.set_num_threads(1)
torch.optim.Adam([torch.zeros(1, requires_grad=True)])
