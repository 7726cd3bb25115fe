"""Which settings of torch a training and its figures are computed under."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pipeline import extractor
from pipeline.training import numerics


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
