"""Which precision and settings of torch a training and its figures are computed under."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import extractor, parallel
from pipeline.training import numerics

from ..together import together


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """As they were, afterwards."""
    before = tf32(), torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before[0]
    torch.backends.cudnn.benchmark = before[1]


def tf32() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_deterministic_training_rounds_no_product_on_cuda(deterministic: bool) -> None:
    for each in (not deterministic, deterministic):  # also after another training of the process
        numerics.prepare(torch.device("cuda"), deterministic=each)
    assert tf32() == (not deterministic, not deterministic)
    assert torch.backends.cudnn.benchmark is not deterministic


def test_features_are_of_full_precision_also_in_a_training() -> None:
    numerics.prepare(torch.device("cuda"), deterministic=False)
    model = extractor.Extractor(image_size=8, channels=1, n_outputs=3, dim=4)
    seen = []
    model.register_forward_pre_hook(lambda *_: seen.append(tf32()))
    extractor.extract(model, np.zeros((2, 8, 8, 1), np.uint8))
    assert seen == [(False, False)]
    assert tf32() == (True, True)


@pytest.mark.parametrize(("has", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_on_a_cpu_bf16_is_picked_by_its_instructions(
    has: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    assert numerics.pick_precision("auto", torch.device("cpu")) == dtype


def test_on_cuda_bf16_is_picked_from_ampere_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the GPU that computes, not by the first one."""
    capabilities = {"cuda:0": (7, 5), "cuda:1": (8, 0), "cuda:2": (9, 0)}
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: capabilities[str(device)]
    )
    picked = [numerics.pick_precision("auto", torch.device(name)) for name in capabilities]
    assert picked == [torch.float32, torch.bfloat16, torch.bfloat16]


def test_elsewhere_bf16_is_not_picked() -> None:
    assert numerics.pick_precision("auto", torch.device("mps")) == torch.float32


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_a_named_precision_is_that_on_any_device(device: str) -> None:
    assert numerics.pick_precision("fp32", torch.device(device)) == torch.float32
    assert numerics.pick_precision("bf16", torch.device(device)) == torch.bfloat16


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_alone_the_precision_is_what_was_picked(precision: torch.dtype) -> None:
    assert numerics.agreed(precision) == precision


def picks(*of_each: torch.dtype) -> torch.dtype:
    return numerics.agreed(of_each[parallel.rank()])


@pytest.mark.slow
def test_all_compute_in_the_precision_of_the_first(tmp_path: Path) -> None:
    told = together(picks, tmp_path, torch.bfloat16, torch.float32)
    assert told == ["torch.bfloat16"] * 2
