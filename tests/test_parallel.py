"""What processes share, seen from one of them; tests/training/test_parallel.py runs two."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor, distributed, nn

from pipeline import parallel

from .together import together, wait_for_file


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a second process had the same rows."""
    monkeypatch.setattr(parallel, "size", lambda: 2)
    monkeypatch.setattr(parallel, "all_reduce", lambda x: 2 * x)
    monkeypatch.setattr(parallel, "all_gather", lambda x: torch.cat([x, x]))


@pytest.mark.parametrize(("n", "size"), [(10, 3), (2, 5), (7, 7), (6, 2), (0, 2)])
def test_every_row_is_one_processs(n: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "size", lambda: size)
    found = []
    for rank in range(size):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        found += list(range(n))[parallel.rows(n)]
    assert found == list(range(n))


def test_draws_do_not_depend_on_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(0))

    alone = parallel.draw(of, (6, 3))
    monkeypatch.setattr(parallel, "size", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        parts.append(parallel.draw(of, (2, 3)))
    assert torch.equal(torch.cat(parts), alone)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(8, 3, 5, 5), (8, 3)], ids=["images", "points"])
def test_batch_norm_of_all_is_torchs_of_the_whole(
    affine: bool, shape: tuple[int, ...], twin: None
) -> None:
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    torchs = kind(3, affine=affine)
    module = nn.Sequential(nn.Identity(), kind(3, affine=affine))
    parallel.normalise_together(module)
    ours = module[1]
    assert isinstance(ours, parallel.BatchNorm)
    x = (3 + torch.randn(shape, generator=torch.Generator().manual_seed(0))).requires_grad_(True)
    whole = torch.cat([x, x]).detach().requires_grad_(True)
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    seen, expected = ours(x), torchs(whole)[: len(x)]
    torch.testing.assert_close(seen, expected)
    for name, value in torchs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, check_dtype=False)
    # With the twin's share, which comes through the statistics, the gradient is the whole's.
    ((seen * weights).sum()).backward()
    (expected * weights).sum().backward()
    assert x.grad is not None
    assert whole.grad is not None
    both = whole.grad[: len(x)] + whole.grad[len(x) :]
    torch.testing.assert_close(x.grad, both, rtol=1e-4, atol=1e-5)


def test_converted_networks_keep_names_and_parameters(twin: None) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2)))
    parameters, names = list(module.parameters()), list(module.state_dict())
    parallel.normalise_together(module)
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))
    assert list(module.state_dict()) == names


def test_alone_nothing_is_changed() -> None:
    x = torch.randn(4, 2)
    assert parallel.all_gather(x) is x
    assert parallel.shard(x) is x
    assert parallel.mean(x) is x
    assert parallel.broadcast_object([1]) == [1]
    assert parallel.all_gather_object([1]) == [[1]]
    assert parallel.broadcast_bytes(b"a") == b"a"
    assert (parallel.anywhere(True), parallel.anywhere(False)) == (True, False)
    module = nn.Sequential(nn.BatchNorm2d(2))
    parallel.normalise_together(module)
    assert type(module[0]) is nn.BatchNorm2d


def dies(where: str, folder: Path) -> None:
    """Process 1 is killed before or while the other one is in a collective."""
    other, begun = psutil.Process(parallel.all_gather_object(os.getpid())[1]), folder / "begun"
    broadcast = distributed.broadcast

    def told(data: Tensor, source: int) -> None:
        work = broadcast(data, source, async_op=True)
        begun.touch()  # from here on it is in a collective
        work.wait()

    parallel.mean(torch.ones(3))  # until process 0 knows the other one
    if parallel.rank() == 1:
        if where == "within":
            wait_for_file(begun)
        os.kill(os.getpid(), signal.SIGKILL)
    if where == "before":
        other.wait(60)
    else:
        distributed.broadcast = told
    for _ in range(2):
        parallel.broadcast_bytes(bytes(10_000_000))
        parallel.mean(torch.ones(3))


@pytest.mark.slow
@pytest.mark.parametrize("where", ["before", "within"])
def test_a_process_that_is_killed_is_lost_to_the_other(where: str, tmp_path: Path) -> None:
    told = together(dies, tmp_path, where, tmp_path)
    assert told[0].startswith("Lost: process 0 has lost another one of the 2: start")
    assert told[1] == ""


def stays_away(folder: Path) -> None:
    if parallel.rank() == 1:
        wait_for_file(folder / "told-0")  # that process 0 has given up
        return
    parallel.mean(torch.ones(3))


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_lost_to_the_other(tmp_path: Path) -> None:
    told = together(stays_away, tmp_path, tmp_path, patience_s=1)
    assert told[0].startswith("Lost: process 0 has lost another one of the 2: start")


def cannot_be_summed() -> Tensor:
    return parallel.mean(torch.ones(3, dtype=torch.float8_e4m3fn))


@pytest.mark.slow
def test_an_error_of_ones_own_in_a_collective_stays_what_it_is(tmp_path: Path) -> None:
    told = together(cannot_be_summed, tmp_path)
    assert all(text.startswith("RuntimeError: Invalid scalar type") for text in told), told


@pytest.mark.parametrize("words", ["CUDA out of memory. Tried", "Expected a dense tensor"])
def test_only_a_broken_connection_is_a_lost_process(words: str) -> None:
    with pytest.raises(RuntimeError, match=words), parallel._watched():
        raise RuntimeError(words)


def gives_all() -> object:
    return parallel.all_gather_object({"rank": parallel.rank()})


def asks_for_one() -> object:
    return [parallel.anywhere(parallel.rank() == rank) for rank in range(3)]


@pytest.mark.slow
def test_what_is_true_in_one_is_true_anywhere(tmp_path: Path) -> None:
    assert together(asks_for_one, tmp_path) == ["[True, True, False]"] * 2


@pytest.mark.slow
def test_what_each_has_all_get(tmp_path: Path) -> None:
    assert together(gives_all, tmp_path, n=3) == ["[{'rank': 0}, {'rank': 1}, {'rank': 2}]"] * 3
