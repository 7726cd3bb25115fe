"""What every entry of a registry must do: a new one is tested without a new test."""

import itertools

import pytest
import torch

from pipeline.compatibility import IMAGE_NETWORKS, OWN_SCALING, POINT_NETWORKS
from pipeline.losses import LOSSES
from pipeline.networks import NETWORKS
from pipeline.networks.build import build
from pipeline.networks.heads import MINIBATCH
from pipeline.networks.scales import FLATTEST
from pipeline.training.optimizers import OPTIMIZERS
from pipeline.training.schedules import SCHEDULES


@pytest.mark.parametrize("name", LOSSES)
class TestLoss:
    def test_discriminator_gains_when_logits_separate(self, name: str) -> None:
        loss = LOSSES[name].discriminator
        middle = torch.full((4,), LOSSES[name].boundary)
        assert loss(middle + 0.3, middle - 0.3) < loss(middle, middle)

    def test_gradients_reach_both_players(self, name: str) -> None:
        real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
        LOSSES[name].discriminator(real, fake).backward()
        assert (real.grad < 0).all()  # type: ignore[operator]  # reals are pushed up,
        assert (fake.grad >= 0).all()  # type: ignore[operator]  # fakes down or held
        fake = torch.zeros(4, requires_grad=True)
        LOSSES[name].generator(fake, torch.zeros(4)).backward()
        assert (fake.grad < 0).all()  # type: ignore[operator]  # G wants fakes up


SHAPES = {(size, size, channels) for size in (28, 32, 64) for channels in (1, 3)}
CASES = [(name, shape) for name in IMAGE_NETWORKS for shape in sorted(SHAPES)]
CASES += [(name, (2,)) for name in POINT_NETWORKS]


def test_every_network_is_of_images_or_of_points() -> None:
    assert {*IMAGE_NETWORKS, *POINT_NETWORKS} == set(NETWORKS)


@pytest.mark.parametrize("n_classes", [0, 5], ids=["unconditional", "conditional"])
@pytest.mark.parametrize(
    ("name", "shape"), CASES, ids=["-".join(map(str, (name, *shape))) for name, shape in CASES]
)
class TestNetwork:
    def pair(self, name: str, shape: tuple[int, ...], n_classes: int, seed: int = 0):
        return build(
            name,
            shape=shape,
            latent_dim=6,
            n_classes=n_classes,
            width=4,
            spectral_norm=name not in OWN_SCALING,
            seed=seed,
        )

    def test_shapes_and_range(self, name, shape, n_classes) -> None:
        generator, discriminator = self.pair(name, shape, n_classes)
        labels = torch.arange(3) if n_classes else None
        samples = generator.eval()(torch.randn(3, 6), labels)
        if len(shape) == 3:
            height, width, channels = shape
            assert samples.shape == (3, channels, height, width)
            assert samples.abs().max() <= 1
        else:
            assert samples.shape == (3, *shape)
        assert discriminator(samples, labels).logits.shape == (3,)

    def test_a_latent_vector_is_one_image_whatever_is_beside_it(
        self, name, shape, n_classes
    ) -> None:
        """In use, that is: in training batches are normalised and noise is drawn."""
        generator, _ = self.pair(name, shape, n_classes)
        generator.eval()
        latents, labels = torch.randn(3, 6), torch.arange(3) if n_classes else None
        together = generator(latents, labels)
        alone = generator(latents[1:2], None if labels is None else labels[1:2])
        torch.testing.assert_close(together[1:2], alone, atol=1e-3, rtol=1e-3)

    def test_weights_are_a_function_of_the_seed(self, name, shape, n_classes) -> None:
        first, second, other = (
            self.pair(name, shape, n_classes, seed)[0].state_dict() for seed in (0, 0, 1)
        )
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert any(not torch.equal(first[key], other[key]) for key in first)

    def test_classes_matter_only_to_conditional_networks(self, name, shape, n_classes) -> None:
        generator, discriminator = self.pair(name, shape, n_classes)
        generator.eval()
        discriminator.eval()
        if not n_classes:
            return
        latents, labels = torch.randn(3, 6), torch.arange(3)
        samples = generator(latents, labels)
        assert not torch.equal(samples, generator(latents, labels + 1))
        own, others = (discriminator(samples, classes).logits for classes in (labels, labels + 1))
        assert not torch.equal(own, others)


@pytest.mark.parametrize("conditioning", ["concat", "projection", "auxiliary"])
@pytest.mark.parametrize("minibatch", MINIBATCH)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_head_goes_on_every_discriminator(
    name: str, conditioning: str, minibatch: str
) -> None:
    shape = (2,) if name in POINT_NETWORKS else (28, 28, 1)
    _, discriminator = build(
        name,
        shape=shape,
        latent_dim=6,
        n_classes=5,
        width=4,
        spectral_norm=False,
        seed=0,
        conditioning=conditioning,
        minibatch=minibatch,
        dropout=0.5,
    )
    samples = torch.rand(6, *(shape if len(shape) == 1 else (1, 28, 28)))
    labels = torch.arange(6) % 5
    verdict = discriminator.eval()(samples, labels)
    assert verdict.logits.shape == (6,)
    named = conditioning == "auxiliary"
    assert (verdict.classes is not None) == named
    other = discriminator(samples, (labels + 1) % 5)
    assert torch.equal(verdict.logits, other.logits) == named


@pytest.mark.parametrize(
    ("name", "last"), [("r3gan", "last.bias"), ("stylegan2", "to_image.2.bias")]
)
def test_a_generator_without_normalisation_is_not_saturated(name: str, last: str) -> None:
    """What is too bright can be told to be darker, and is not told to be brighter still."""
    generator, _ = build(
        name, shape=(28, 28, 1), latent_dim=6, n_classes=0, width=4, spectral_norm=False, seed=0
    )
    bias = generator.get_parameter(last)
    torch.nn.init.constant_(bias, 20.0)
    latents = torch.randn(3, 6)
    for sign, slope in ((1, FLATTEST), (-1, 0)):
        bias.grad = None
        (sign * generator(latents).mean()).backward()
        assert bias.grad is not None
        assert bias.grad.sum() == pytest.approx(slope, abs=1e-3)
    assert generator.eval()(latents).max() == 1


@pytest.mark.parametrize("name", NETWORKS)
def test_a_class_is_part_of_a_logit_and_not_all_of_it(name: str) -> None:
    """Without spectral normalisation too, at the start."""
    shape = (2,) if name in POINT_NETWORKS else (32, 32, 3)
    samples = torch.randn(8, *(shape if len(shape) == 1 else (3, 32, 32))).clamp(-1, 1)
    _, discriminator = build(
        name, shape=shape, latent_dim=6, n_classes=5, width=16, spectral_norm=False, seed=0,
        conditioning="projection",
    )  # fmt: skip
    logits = torch.stack(
        [discriminator(samples, torch.full((8,), label)).logits.detach() for label in range(5)]
    )
    features = discriminator.features(samples, None)
    assert logits.std(dim=0).mean() < 2 * features.square().mean().sqrt()


@pytest.mark.parametrize("name", [name for name in IMAGE_NETWORKS if name != "dcgan"])
@pytest.mark.parametrize("size", [8, 20, 48, 100, 256])
def test_images_of_any_size_are_made_and_judged(name: str, size: int) -> None:
    generator, discriminator = build(
        name,
        shape=(size, size, 3),
        latent_dim=6,
        n_classes=0,
        width=4,
        spectral_norm=False,
        seed=0,
    )
    samples = generator(torch.randn(2, 6))
    assert samples.shape == (2, 3, size, size)
    assert discriminator(samples).logits.shape == (2,)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_downhill(name: str) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = OPTIMIZERS[name]([weight], 0.1, [0.5, 0.9], 0.0)
    for _ in range(30):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    assert weight.abs().max() < 0.5


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_start_at_one_and_never_rise(name: str) -> None:
    values = [SCHEDULES[name](i / 10) for i in range(11)]
    assert values[0] == 1
    assert all(later <= earlier for earlier, later in itertools.pairwise(values))
    assert values[-1] == pytest.approx(1 if name == "none" else 0)
