"""Networks through torch.compile: the same numbers, and plain where they must be."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.compatibility import POINT_NETWORKS
from pipeline.networks import NETWORKS
from pipeline.networks.build import build
from pipeline.networks.heads import MINIBATCH
from pipeline.regularizers import TERMS, Regularizer, r1
from pipeline.training import compiling
from pipeline.training.finite import Diverged
from pipeline.training.state import State
from tests.training.test_loop import assert_resumes, make, run

# torch provokes it and hides it, which a filter that makes it an error comes before.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")

CPU = torch.device("cpu")
PLAIN: dict[str, Any] = {
    "spectral_norm": False,
    "head": {"conditioning": "auxiliary", "minibatch": "discrimination"},
}


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the compiler but the code that it would generate: seconds in place of a minute."""
    inner = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda what, **options: inner(what, **options, backend="aot_eager")
    )


def weights(state: State) -> list[Tensor]:
    modules = (state.generator, state.discriminator, state.ema)
    return [value for module in modules for value in module.state_dict().values()]


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_compiled_whole_or_says_why_not(name: str) -> None:
    shape = (2,) if name in POINT_NETWORKS else (28, 28, 1)
    networks = build(
        name, shape=shape, latent_dim=6, n_classes=5, width=4, spectral_norm=False, seed=0
    )
    latents, labels = torch.randn(4, 6), torch.arange(4)
    g, d = networks
    fast_g, fast_d = compiling.compiled({"g": g, "d": d}, CPU)
    assert (fast_g is g) == (name in ("stylegan2", "progressive"))
    assert (fast_d is d) == (name == "progressive")
    g.eval()  # noise of networks that draw their own
    fakes = g(latents, labels)
    torch.testing.assert_close(fast_g(latents, labels), fakes)
    for given in (fakes.detach(), fakes):
        torch.testing.assert_close(fast_d(given, labels).logits, d(given, labels).logits)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("terms", [[], [Regularizer(r1, 1.0, every=2), TERMS["dragan"](1.0)]])
def test_a_training_is_the_same_to_rounding(terms: list[Any]) -> None:
    plain, fast = (run(*make(**PLAIN), steps=6, terms=terms, compile=on) for on in (False, True))
    for ours, theirs in zip(weights(plain), weights(fast), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("traced")
def test_one_process_compiles_for_many_trainings() -> None:
    """As a search does, whose trials would otherwise fill the compiler's list of variants."""
    for conditioning in ("concat", "projection", "auxiliary"):
        for minibatch in MINIBATCH:
            head = {"conditioning": conditioning, "minibatch": minibatch}
            state, task = make(spectral_norm=False, head=head)
            assert run(state, task, steps=1, compile=True).step == 1


@pytest.mark.usefixtures("traced")
def test_the_maker_of_nan_is_still_named() -> None:
    messages = []
    for on in (False, True):
        state, task = make(**PLAIN)
        with torch.no_grad():
            state.discriminator.head.linear.weight[0, 0] = float("nan")
        with pytest.raises(Diverged) as caught:
            run(state, task, steps=4, compile=on)
        messages.append(str(caught.value))
    assert "discriminator.head.linear" in messages[0]
    assert messages[0] == messages[1]


@pytest.mark.usefixtures("traced")
def test_what_stays_plain_says_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run(*make(), steps=1, compile=True)  # D is normalised spectrally
    assert "the discriminator is not compiled: spectral normalisation" in caplog.text
    assert "the generator is not compiled" not in caplog.text


def test_a_machine_without_a_compiler_is_told_the_way_out(tmp_path: Path) -> None:
    script = """
from pipeline import errors
from tests.training.test_loop import make, run

errors.run(lambda: run(*make(name="mlp"), steps=1, compile=True))
"""
    environment = {
        **os.environ,
        "CXX": "/nowhere/g++",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 1, done.stderr
    assert "set train.compile: false" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_training_through_generated_code_resumes_bit_identical(tmp_path: Path) -> None:
    assert_resumes(tmp_path, PLAIN, {"compile": True, "terms": [Regularizer(r1, 1.0, every=4)]})


@pytest.mark.slow
def test_generated_code_gives_the_same_numbers_to_rounding() -> None:
    plain, fast = (run(*make(**PLAIN), steps=6, compile=on) for on in (False, True))
    for ours, theirs in zip(weights(plain), weights(fast), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
