"""One computation in several processes: each has its part of every batch, and what they share.

Each process holds the same networks and takes its rows of each batch. Whatever depends on the whole
batch (statistics of batch normalisation, a mean inside a square, a threshold) goes through the
functions here, so that the result is that of one process with the whole batch, up to rounding. In a
single process they return what they are given and call nothing.

Gradients are averaged by one all-reduce of all of them after the backward pass, not by torch's
DistributedDataParallel: that must see every forward pass, and here D is called several times before
one backward, and for gradients of gradients.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.errors import Lost

log = logging.getLogger(__name__)

Shape = tuple[int, ...]

# What gloo's and NCCL's errors say where the other end of a connection ends or no longer answers.
GONE = re.compile(
    r"Connection (closed|reset|refused)|Broken pipe|Timed out waiting|ncclRemoteError"
)

BEAT_S = 30.0  # how long process 0 tries for a lock before the others hear that it still does


def size() -> int:
    """Processes that compute together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def rows(n: int) -> slice:
    """Which of `n` rows are this process's; the first processes have no fewer than the last."""
    each, more = divmod(n, size())
    first = rank() * each + min(rank(), more)
    return slice(first, first + each + (rank() < more))


def draw(of: Callable[[Shape], Tensor], shape: Shape) -> Tensor:
    """This process's rows of what `of` draws for all: `shape` is that of the rows.

    Every process draws the numbers of the whole batch, so that they do not depend on its parts.
    """
    if size() == 1:
        return of(shape)
    n = shape[0]
    return of((n * size(), *shape[1:]))[rank() * n : (rank() + 1) * n]


def all_reduce(x: Tensor) -> Tensor:
    """The sum over all processes, differentiable any number of times."""
    return x if size() == 1 else _AllReduce.apply(x)


def mean(x: Tensor) -> Tensor:
    """The mean over all processes, differentiable likewise."""
    return x if size() == 1 else all_reduce(x) / size()


def all_gather(x: Tensor) -> Tensor:
    """The rows (n, ...) of all processes, as many of each: (n * size, ...), differentiable."""
    if size() == 1:
        return x
    before = x.new_zeros(rank() * len(x), *x.shape[1:])
    after = x.new_zeros((size() - 1 - rank()) * len(x), *x.shape[1:])
    return all_reduce(torch.cat([before, x, after]))


def shard(x: Tensor) -> Tensor:
    """This process's rows of what `all_gather` gave."""
    return x if size() == 1 else x[rows(len(x))]


@torch.no_grad()
def average_gradients(parameters: Sequence[Tensor], loss: Tensor) -> Tensor:
    """Replace each gradient by its mean over all processes. Returns the mean of `loss`, a scalar.

    The loss goes along, so that all processes think the same of it (as whether it is finite).
    """
    if size() == 1:
        return loss
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = [*(gradient.reshape(-1) for gradient in gradients), loss.reshape(1)]
    means = _all_reduce(torch.cat(flat)) / size()
    pieces = means.split([len(piece) for piece in flat])
    for gradient, piece in zip(gradients, pieces, strict=False):
        gradient.copy_(piece.view(gradient.shape))
    return pieces[-1].squeeze(0)


def broadcast_object(value: Any) -> Any:
    """Process 0's `value` (of JSON) in every process."""
    return _object_from(0, value) if size() > 1 else value


def anywhere(value: bool) -> bool:
    """Whether it is true in any process."""
    if size() == 1:
        return value
    return bool(_all_reduce(torch.tensor([int(value)], device=_device())))


def all_gather_object(value: Any) -> list[Any]:
    """Every process's `value` (of JSON) in every process, by their numbers."""
    return [_object_from(source, value) for source in range(size())] if size() > 1 else [value]


def until(done: Callable[[], bool]) -> None:
    """Call process 0's `done` until it is true; the others wait, theirs are not called.

    It must return within minutes: nobody waits for ever in a collective.
    """
    while not broadcast_object(rank() == 0 and done()):
        pass


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Process 0 holds the lock file `path`; the others wait until it does, however long.

    `on_wait` is called where another command holds it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)

    def taken(within: float) -> bool:
        try:
            lock.acquire(timeout=within)
        except Timeout:
            return False
        return True

    try:
        if rank() == 0 and not taken(0):
            on_wait()
        until(lambda: lock.is_locked or taken(BEAT_S))
        yield
    finally:
        lock.release()


def _object_from(source: int, value: Any) -> Any:
    content = json.dumps(value).encode() if rank() == source else b""
    return json.loads(_broadcast(content, source))


def broadcast_bytes(content: bytes) -> bytes:
    """Process 0's `content` in every process."""
    return content if size() == 1 else _broadcast(content, 0)


def _broadcast(content: bytes, source: int) -> bytes:
    """The `content` of process `source` in every process."""
    length = torch.tensor([len(content)], device=_device())
    with _watched():
        distributed.broadcast(length, source)
    if not length:
        return b""
    data = torch.empty(int(length), dtype=torch.uint8, device=_device())
    if rank() == source:
        data.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    with _watched():
        distributed.broadcast(data, source)
    return data.cpu().numpy().tobytes()


def all_gather_rows(array: np.ndarray, n: int) -> np.ndarray:
    """All `n` rows of an array of which each process has its `rows(n)`."""
    if size() == 1:
        return array
    everything = np.zeros((n, *array.shape[1:]), array.dtype)
    everything[rows(n)] = array
    # Bytes: each is of one process and zero in the others, whatever the type.
    data = torch.from_numpy(everything.view(np.uint8).reshape(-1)).to(_device())
    return _all_reduce(data).cpu().numpy().view(array.dtype).reshape(everything.shape)


class BatchNorm(_BatchNorm):
    """Batch normalisation by the statistics of the batches of all processes."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape; the N may differ between processes."""
        if not self.training or size() == 1:
            return super().forward(input)
        x = input.float()
        over = [0, *range(2, x.dim())]
        shape = (1, -1, *[1] * (x.dim() - 2))
        # Each process's own mean and squares about it, put together by the formula of Chan et al.
        # (1979): the difference of E[x^2] and E[x]^2 would lose what they have in common, and a
        # second pass about the common mean would make all wait for each other twice.
        n = x.numel() // x.shape[1]
        own = x.mean(over)
        squares = (x - own.view(shape)).square().sum(over)
        means, squares, counts = all_gather(
            torch.cat([own, squares, own.new_full((1,), n)])[None]
        ).split([len(own), len(own), 1], dim=1)
        count = counts.sum().detach()
        mean = (counts * means).sum(0) / count
        variance = (squares + counts * (means - mean).square()).sum(0) / count
        if self.track_running_stats and self.running_mean is not None:
            self._remember(mean.detach(), variance.detach() * count / (count - 1))
        y = (x - mean.view(shape)) * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def normalise_together(module: nn.Module) -> None:
    """Let the module's batch normalisations count the batches of all processes.

    torch's own synchronised one works on CUDA only. Parameters and buffers stay the same objects,
    under the same names.
    """
    if size() == 1:
        return
    for name, child in module.named_children():
        if not isinstance(child, _BatchNorm):
            normalise_together(child)
            continue
        own = BatchNorm(
            child.num_features,
            child.eps,
            child.momentum,
            child.affine,
            child.track_running_stats,
        )
        own._parameters, own._buffers = child._parameters, child._buffers
        own.train(child.training)
        setattr(module, name, own)


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _all_reduce(x.detach().clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        # What each process makes of the sum depends on every process's x.
        return _AllReduce.apply(gradients[0])


def _all_reduce(x: Tensor) -> Tensor:
    with _watched():
        distributed.all_reduce(x)
    return x


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Where another process is gone a collective fails, which is no error of this one."""
    try:
        yield
    except RuntimeError as error:
        if not _says_gone(error):
            raise
        log.debug("the collective said", exc_info=True)
        raise Lost(
            f"process {rank()} has lost another one of the {size()}: start the stage again, on "
            "every machine, and a training continues at its last checkpoint"
        ) from error


def _says_gone(error: RuntimeError) -> bool:
    """By its words where the type is no more than RuntimeError (gloo), or any failure (NCCL)."""
    network = (distributed.DistNetworkError, distributed.DistStoreError)
    return isinstance(error, network) or GONE.search(str(error)) is not None


def _device() -> torch.device:
    """Where a collective's tensors must lie."""
    if distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
