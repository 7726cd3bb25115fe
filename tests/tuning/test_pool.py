"""How workers share a machine."""

from __future__ import annotations

import pytest

from pipeline.tuning import pool


@pytest.mark.parametrize(
    ("visible", "gpus", "expected"),
    [
        (None, 2, ["0", "1", "0"]),
        ("2,3", 2, ["2", "3", "2"]),  # the user gave the search these two
        ("GPU-a, GPU-b", 2, ["GPU-a", "GPU-b", "GPU-a"]),
        ("1", 1, ["1", "1", "1"]),
    ],
)
def test_each_worker_takes_a_gpu_of_those_that_are_visible(
    visible: str | None, gpus: int, expected: list[str]
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = [pool.visible_gpu(i, gpus, "cuda", environment) for i in range(3)]
    assert found == [{"CUDA_VISIBLE_DEVICES": name} for name in expected]


def test_a_gpu_that_the_user_chose_is_every_workers() -> None:
    """Seen alone it would have another number."""
    assert pool.visible_gpu(0, 4, "cuda:1", {}) == {}


def test_without_gpus_nothing_is_said_of_them() -> None:
    assert pool.visible_gpu(0, 0, "auto", {}) == {}
