"""Growing networks: when which side is in use, and that fading in is without a jump."""

import itertools

import pytest
import torch

from pipeline.networks.build import build
from pipeline.networks.progressive import GROWING, level_at


def pair():
    return build(
        "progressive", shape=(28, 28, 1), latent_dim=4, n_classes=0, width=4, spectral_norm=False, seed=0
    )  # fmt: skip


def test_levels_rise_in_turns_of_staying_and_fading_to_the_highest() -> None:
    levels = [level_at(i / 1000, 2) for i in range(1001)]
    assert levels[0] == 0
    assert levels[int(1000 * GROWING) :] == [2] * (1001 - int(1000 * GROWING))
    assert all(0 <= later - earlier < 0.02 for earlier, later in itertools.pairwise(levels))
    assert sum(level == 1 for level in levels) == pytest.approx(150, abs=2)


@pytest.mark.parametrize("whole", [0, 1])
def test_a_new_side_fades_in_without_a_jump(whole: int) -> None:
    generator, discriminator = pair()
    latents, images = torch.randn(4, 4), torch.rand(4, 1, 28, 28)
    seen = []
    for level in (float(whole), whole + 1e-6):
        generator.level = discriminator.level = level
        seen.append((generator(latents), discriminator(images).logits))
    torch.testing.assert_close(seen[0][0], seen[1][0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(seen[0][1], seen[1][1], atol=1e-4, rtol=1e-4)


def test_what_is_not_grown_is_doubled_pixels() -> None:
    generator, _ = pair()
    generator.level = 1.0
    samples = generator(torch.randn(2, 4))
    assert torch.equal(samples[:, :, ::2, ::2], samples[:, :, 1::2, 1::2])


def test_the_level_is_saved_with_the_weights() -> None:
    generator, _ = pair()
    generator.grow(0.2)
    other, _ = pair()
    other.load_state_dict(generator.state_dict())
    assert other.level == generator.level < 2
