"""Inception's features and figures: torch-fidelity's own, and where its weights come from."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from pipeline import evaluation, inception
from pipeline.errors import UserError
from pipeline.evaluation import Fakes, Settings, Space
from pipeline.reference import build_reference

from .random_inception import pictures, write

N = 24  # a core sees some five images a second
NAME = "weights-inception-2015-12-05-6726825d.pth"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> inception.Weights:
    return inception.find(str(write(tmp_path_factory.mktemp("weights") / "random.pth")))


@pytest.fixture(scope="module")
def network(weights: inception.Weights):
    return inception.load(weights)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository and a home of torch's with nothing in them, and a network that is down."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("urllib.request._opener", None)  # which remembers the proxies
    return tmp_path


class Images(Dataset):
    """Images as torch-fidelity takes them."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.images[i]


@pytest.mark.slow
def test_the_figures_are_those_of_torch_fidelity(weights: inception.Weights, network) -> None:
    from torch_fidelity import calculate_metrics

    fakes, reals = pictures(N, 0) // 2, pictures(N, 1)
    theirs = calculate_metrics(
        input1=Images(fakes),
        input2=Images(reals),
        cuda=False,
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights.path),
        kid_subset_size=N,
        prc_neighborhood=1,
        save_cpu_ram=True,  # else it starts processes
        verbose=False,
    )

    seen, logits = inception.extract(network, fakes)
    of_reals, _ = inception.extract(network, reals)
    rng = np.random.default_rng(0)
    features, classes = (rng.normal(size=(N, n)).astype(np.float32) for n in (8, 3))
    ours = evaluation.evaluate(
        Fakes(features, classes, fakes),
        build_reference(features, classes, [8, 8, 8]),
        Space(seen, of_reals, of_reals, logits, "fid", distance=inception.fid, kid=inception.kid),
        Settings(neighbours=1, bootstraps=20),
    )

    assert seen.std(axis=0).mean() > 0.05
    same = {
        "fid": "frechet_inception_distance",
        "kid": "kernel_inception_distance_mean",
        "is_mean": "inception_score_mean",
        "is_std": "inception_score_std",
        "precision": "precision",
        "recall": "recall",
    }
    for key, name in same.items():
        assert ours[key] == pytest.approx(theirs[name], rel=1e-6), key
    assert 0 < ours["precision"] < 1
    assert ours["fid_ci_low"] < ours["fid"] < ours["fid_ci_high"]
    assert "fd" not in ours


def test_the_distance_is_the_exact_one_but_for_torch_fidelitys_last_digits(network) -> None:
    from pipeline.metrics import frechet

    a, b = (np.random.default_rng(seed).normal(seed, 1, (50, 64)).astype("f") for seed in (0, 1))
    assert inception.fid(a, b) == pytest.approx(frechet.distance(a, b), rel=1e-4)
    many_a, many_b = a.repeat(20, axis=0), b.repeat(20, axis=0)
    many_a += np.random.default_rng(2).normal(size=many_a.shape).astype("f")
    many_b += np.random.default_rng(3).normal(size=many_b.shape).astype("f")
    exact = frechet.distance(many_a, many_b)
    assert inception.fid(many_a, many_b) == pytest.approx(exact, rel=1e-6)


def test_a_gray_image_is_one_of_three_equal_channels(network) -> None:
    gray = pictures(3, 4, channels=1)
    features, logits = inception.extract(network, gray)
    in_colour, _ = inception.extract(network, gray.repeat(3, axis=3))
    assert (features.shape, logits.shape) == ((3, 2048), (3, 1008))
    assert features.dtype == logits.dtype == np.float32
    assert np.array_equal(features, in_colour)


def test_images_of_several_batches_keep_their_order(
    network, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures(3, 6)
    whole, _ = inception.extract(network, images)
    monkeypatch.setattr(inception, "BATCH", 2)
    in_parts, _ = inception.extract(network, images)
    assert in_parts == pytest.approx(whole, rel=1e-3, abs=1e-4)


def test_features_of_reals_are_computed_once_and_kept_by_content(
    weights: inception.Weights, network, elsewhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def features(n: int = 3, sha256: str = "a" * 64, of: inception.Weights = weights) -> np.ndarray:
        return inception.real_features(network, of, pictures(n, 5), sha256, title="reals")

    def kept() -> list[Path]:
        return sorted((elsewhere / ".cache" / "features").glob("*.npy"))

    first = features()
    assert len(kept()) == 1
    assert caplog.text.count("reals: 3 in") == 1
    assert np.array_equal(features(), first)
    assert caplog.text.count("reals: 3 in") == 1
    features(n=2)
    features(sha256="b" * 64)
    features(of=inception.Weights(weights.path, "c" * 64))
    assert len(kept()) == 4


def test_other_weights_are_used_and_never_called_standard(
    weights: inception.Weights, caplog: pytest.LogCaptureFixture
) -> None:
    found = inception.find(str(weights.path))
    assert found.extractor == "inception (custom weights)"
    assert found.sha256 == hashlib.sha256(weights.path.read_bytes()).hexdigest()
    assert "not the standard weights" in caplog.text
    assert inception.Weights(weights.path, inception.STANDARD).extractor == "inception"


def test_the_standard_weights_are_those_that_torch_fidelity_names() -> None:
    assert inception.address().endswith(f"-{inception.STANDARD[:8]}.pth")


def test_a_relative_path_starts_at_the_repository(elsewhere: Path) -> None:
    (elsewhere / "mine.pth").write_bytes(b"weights")
    assert inception.find("mine.pth").path == elsewhere / "mine.pth"


def test_a_missing_file_says_where_to_get_it_and_which_key_to_set(elsewhere: Path) -> None:
    with pytest.raises(UserError) as caught:
        inception.find("nowhere.pth")
    for words in ("nowhere.pth does not exist", inception.address(), "evaluate.inception_weights"):
        assert words in str(caught.value)


def test_without_a_network_the_message_says_where_to_get_the_file(elsewhere: Path) -> None:
    with pytest.raises(UserError) as caught:
        inception.find(None)
    place = elsewhere / "torch/hub/checkpoints" / NAME
    for words in ("could not be downloaded", inception.address(), str(place)):
        assert words in str(caught.value)
    assert "evaluate.inception_weights" in str(caught.value)
    assert list(place.parent.iterdir()) == []


def test_the_download_is_checked_and_kept_where_torch_fidelity_looks(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = elsewhere / NAME
    served.write_bytes(b"weights")
    monkeypatch.setattr(
        "torch_fidelity.feature_extractor_inceptionv3.URL_INCEPTION_V3", served.as_uri()
    )
    with pytest.raises(UserError, match="invalid hash"):
        inception.find(None)
    monkeypatch.setattr(inception, "STANDARD", hashlib.sha256(b"weights").hexdigest())
    found = inception.find(None)
    assert found.standard
    assert found.path == elsewhere / "torch/hub/checkpoints" / NAME
    served.unlink()
    assert inception.find(None) == found
    found.path.write_bytes(b"weigh")
    with pytest.raises(UserError, match="damaged"):
        inception.find(None)


@pytest.mark.parametrize("what", ["no weights", "nothing", "a list", "other shapes"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "weights.pth"
    if what in ("no weights", "nothing"):
        path.write_bytes(b"no weights"[: 0 if what == "nothing" else None])
    else:
        torch.save([1] if what == "a list" else {"fc.weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match=r"holds no weights.*evaluate\.inception_weights"):
        inception.load(inception.find(str(path)))


def test_no_code_in_a_file_of_weights_runs(tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "weights.pth"
    for save in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, 2))):
        save(Planted(), path)
        with pytest.raises(UserError, match="holds no weights"):
            inception.load(inception.find(str(path)))
    assert not (tmp_path / "ran").exists()
