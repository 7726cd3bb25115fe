"""How an update runs: kernel by kernel, or replayed as one CUDA graph.

A small network on a large GPU waits for its kernels to be launched; a graph launches all of an
update at once. An update is a function of tensors alone, `(drawn, draws) -> result`: it
is run some times as it is, then captured, and from then on replayed on the same memory, into which
the host puts the numbers that it draws. The kernels are the same, and so are the numbers.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pipeline import parallel
from pipeline.errors import UserError
from pipeline.training import devices
from pipeline.training.randomness import Draws

log = logging.getLogger(__name__)

Drawn = tuple[Tensor, ...]
Result = TypeVar("Result")
WARM_UP = 3  # runs before a capture: cuDNN tries its kernels, libraries allocate what they need


class Eager:
    """Runs updates as they are."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(
        self, key: Hashable, update: Callable[[Drawn, Draws], Result], drawn: Drawn, draws: Draws
    ) -> Result:
        """`update` of what the host has drawn (on the CPU); equal keys are the same computation."""
        return self._run(update, drawn, draws)

    def _run(self, update: Callable[[Drawn, Draws], Result], drawn: Drawn, draws: Draws) -> Result:
        return update(tuple(devices.moved(x, self.device) for x in drawn), draws)

    def prepare(self, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        """Before the first update, and after the optimizers' state was replaced."""
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = float(group["lr"])
                if "capturable" in group:
                    group["capturable"] = False


class Graphs(Eager):
    """Captures each update after some runs, and replays it; see `hindrance` for where it can."""

    def __init__(self, device: torch.device, parameters: Sequence[Tensor]) -> None:
        super().__init__(device)
        self.parameters = parameters  # whose gradients somebody may read after an update
        self.stream = torch.cuda.Stream(device)
        self.runs: Counter[Hashable] = Counter()
        self.captured: dict[Hashable, _Captured] = {}

    def __call__(
        self, key: Hashable, update: Callable[[Drawn, Draws], Result], drawn: Drawn, draws: Draws
    ) -> Result:
        if key not in self.captured:
            self.runs[key] += 1
            heard = _Heard(draws)
            result = self._aside(update, drawn, heard)
            if self.runs[key] == WARM_UP:
                self.captured[key] = self._capture(update, drawn, heard)
            return result
        return self.captured[key].replay(drawn, draws)

    def prepare(self, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        # The memory that the graphs know is not that of the new state.
        self.runs.clear()
        self.captured.clear()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(float(group["lr"]), device=self.device)
                group["capturable"] = True

    def _aside(
        self, update: Callable[[Drawn, Draws], Result], drawn: Drawn, draws: Draws
    ) -> Result:
        """On the stream of the captures, as torch asks for before one."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            result = self._run(update, drawn, draws)
        current.wait_stream(self.stream)
        return result

    def _capture(
        self, update: Callable[[Drawn, Draws], Any], drawn: Drawn, heard: _Heard
    ) -> _Captured:
        """The update as a graph. It is not run."""
        inputs = _Inputs([*drawn, *heard.numbers], self.device)
        given, numbers = inputs.memory[: len(drawn)], inputs.memory[len(drawn) :]
        graph = torch.cuda.CUDAGraph()
        before = [p.grad for p in self.parameters]
        try:
            # Other threads write checkpoints meanwhile: their copies are not part of this.
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                result = update(tuple(given), _Given(numbers))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # The end of the capture fails after whatever spoilt it.
            cause = error.__context__ or error
            raise UserError(
                "an update of this training cannot be captured as a CUDA graph "
                f"({str(cause).splitlines()[0]}); set train.cuda_graphs: false"
            ) from error
        gradients = [
            (p, p.grad)
            for p, earlier in zip(self.parameters, before, strict=True)
            if p.grad is not None and p.grad is not earlier
        ]
        for parameter, earlier in zip(self.parameters, before, strict=True):
            parameter.grad = earlier  # of the update that was run
        return _Captured(graph, inputs, heard.kinds, result, gradients)


class _Captured:
    """A graph, and the memory that it reads and writes."""

    def __init__(
        self,
        graph: torch.cuda.CUDAGraph,
        inputs: _Inputs,
        kinds: list[str],
        result: Any,
        gradients: list[tuple[Tensor, Tensor]],
    ) -> None:
        self.graph, self.inputs, self.kinds, self.result = graph, inputs, kinds, result
        self.gradients = gradients

    def replay(self, drawn: Drawn, draws: Draws) -> Any:
        """Run it on what the host has drawn; `draws` are taken in the order that was heard."""
        shapes = [tuple(memory.shape) for memory in self.inputs.memory[len(drawn) :]]
        taken = zip(self.kinds, shapes, strict=True)
        self.inputs.fill([*drawn, *(getattr(draws, kind)(shape) for kind, shape in taken)])
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.result


class _Inputs:
    """Memory on the device for tensors like `like`, filled from the host by a single copy.

    It must be there before a capture: what is allocated in one may share its place with what an
    earlier kernel of the graph writes.
    """

    ALIGNED = 64  # bytes

    def __init__(self, like: Sequence[Tensor], device: torch.device) -> None:
        ends = list(accumulate(-(-x.nbytes // self.ALIGNED) * self.ALIGNED for x in like))
        places = list(zip([0, *ends], like, strict=False))

        def laid_out(flat: Tensor) -> list[Tensor]:
            return [flat[at : at + x.nbytes].view(x.dtype).view(x.shape) for at, x in places]

        self.flat = torch.empty(ends[-1], dtype=torch.uint8, device=device)
        self.memory = laid_out(self.flat)
        # On the host twice: one is written while the device may still read the other.
        flats = [torch.empty(ends[-1], dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        self.staged = [(flat, laid_out(flat), torch.cuda.Event()) for flat in flats]

    def fill(self, tensors: Sequence[Tensor]) -> None:
        """Copy tensors of the CPU to the device; the host does not wait for it."""
        flat, views, copied = self.staged[0]
        self.staged.reverse()
        copied.synchronize()  # with the copy before last
        for view, x in zip(views, tensors, strict=True):
            view.copy_(x)
        self.flat.copy_(flat, non_blocking=True)
        copied.record()


class _Heard(Draws):
    """Remembers what is drawn, and of which kind."""

    def __init__(self, inner: Draws) -> None:
        super().__init__(inner.seed, inner.counter)
        self.kinds: list[str] = []
        self.numbers: list[Tensor] = []

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        return self._hear("uniform", super().uniform(shape))

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return self._hear("normal", super().normal(shape))

    def _hear(self, kind: str, numbers: Tensor) -> Tensor:
        self.kinds.append(kind)
        self.numbers.append(numbers)
        return numbers


class _Given(Draws):
    """Draws that lie on the device already."""

    def __init__(self, numbers: Sequence[Tensor]) -> None:
        super().__init__(0, 0)
        self.numbers = iter(numbers)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        return next(self.numbers)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return next(self.numbers)


def runner(
    device: torch.device,
    networks: Sequence[nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
) -> Eager:
    """Graphs where these can be captured, else updates as they are."""
    why = hindrance(device, networks, optimizers)
    if why is None:
        return Graphs(device, [p for network in networks for p in network.parameters()])
    if device.type == "cuda":
        log.info("no CUDA graphs: %s", why)
    return Eager(device)


def hindrance(
    device: torch.device,
    networks: Sequence[nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
) -> str | None:
    """Why updates cannot be replayed: what they do must be the same kernels at every step."""
    if device.type != "cuda":
        return "they need CUDA"
    if parallel.size() > 1:
        return "several processes"
    if any("capturable" not in group for o in optimizers for group in o.param_groups) or not all(
        getattr(o, "_step_supports_amp_scaling", False) for o in optimizers
    ):
        return "only adam and adamw skip an update that is not finite by themselves"
    return next((why for why in map(unsteady, networks) if why is not None), None)


def unsteady(network: nn.Module) -> str | None:
    """Why what it computes is not the same at every call, if so."""
    for module in network.modules():
        if hasattr(module, "grow"):
            return "the networks grow"
        if hasattr(module, "draws"):
            return f"{type(module).__name__} draws its own numbers"
    return None
