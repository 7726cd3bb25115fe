"""Which device computes, and what is said where the named one is absent."""

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.training import devices


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many devices of a kind torch sees: none, until a test says so."""
    counts = {"cuda": 0, "mps": 0}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: counts["cuda"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: counts["cuda"] > 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: counts["mps"] > 0)
    return counts


@pytest.mark.parametrize(
    ("cuda", "mps", "device"), [(1, 1, "cuda"), (2, 0, "cuda"), (0, 1, "mps"), (0, 0, "cpu")]
)
def test_auto_is_cuda_else_mps_else_the_cpu(
    cuda: int, mps: int, device: str, seen: dict[str, int]
) -> None:
    seen |= {"cuda": cuda, "mps": mps}
    assert devices.pick_device("auto") == torch.device(device)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1", "mps", "cpu"])
def test_what_is_there_can_be_named(name: str, seen: dict[str, int]) -> None:
    seen |= {"cuda": 2, "mps": 1}
    assert devices.pick_device(name) == torch.device(name)


@pytest.mark.parametrize(
    ("name", "n", "told"),
    [
        ("cuda", 0, "train.device is 'cuda', but torch sees 0 CUDA devices; set it to auto or cpu"),
        ("cuda:0", 0, "train.device is 'cuda:0', but torch sees 0 CUDA devices"),
        ("cuda:2", 2, "train.device is 'cuda:2', but torch sees 2 CUDA devices"),
        ("mps", 0, "train.device is 'mps', but torch sees no MPS; set it to auto or cpu"),
    ],
)
def test_what_is_absent_is_told_with_the_way_out(
    name: str, n: int, told: str, seen: dict[str, int]
) -> None:
    seen["cuda"] = n
    with pytest.raises(ConfigError, match=told):
        devices.pick_device(name)
