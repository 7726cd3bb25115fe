"""Networks through torch.compile: fewer kernels, less memory moved, the same numbers to rounding.

Where a gradient of a gradient is taken the plain networks are called: what is compiled has none.
"""

from __future__ import annotations

import logging
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline import parallel
from pipeline.errors import UserError
from pipeline.training import graphs

log = logging.getLogger(__name__)


def compiled(networks: dict[str, nn.Module], device: torch.device) -> list[nn.Module]:
    """Each of them to be called instead of itself, or itself where it must stay as it is.

    By name, for the log. They share their weights with the networks. Raises UserError where
    torch.compile does not work at all on this machine.
    """
    # A process that trains several times (a search) fills the compiler's list of variants.
    torch.compiler.reset()
    whys = {name: hindrance(network) for name, network in networks.items()}
    for name, why in whys.items():
        if why is not None:
            log.info("%s is not compiled: %s", name, why)
    if None in whys.values():
        _require(device)
    return [
        cast(nn.Module, torch.compile(network, fullgraph=True, dynamic=False))
        if whys[name] is None
        else network
        for name, network in networks.items()
    ]


def hindrance(network: nn.Module) -> str | None:
    """Why it would be compiled anew again and again, or not at all."""
    if parallel.size() > 1:
        return "several processes"
    if any(parametrize.is_parametrized(module) for module in network.modules()):
        return "spectral normalisation keeps the weights of an update aside"
    return graphs.unsteady(network)


def _require(device: torch.device) -> None:
    def doubled(x: Tensor) -> Tensor:
        return x + x

    try:
        torch.compile(doubled)(torch.ones(2, device=device))
    except Exception as error:  # whatever its own compilers raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"torch.compile does not work on this machine ({reason}): it needs a C++ compiler, on "
            "CUDA Triton; install these or set train.compile: false"
        ) from error
