from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline import evaluation, extractor, extractor_training, files, paths, scoring
from pipeline.datasets import prepared
from pipeline.errors import UserError
from pipeline.training.monitor import Monitor


def bars(n: int, size: int = 16, channels: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images of a bright bar, whose place is their class (0 to 2); lower half darker."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    images = rng.integers(0, 60, (n, size, size, channels), dtype=np.uint8)
    width = size // 4
    for image, label in zip(images, labels, strict=True):
        start = size // 8 + label * width
        image[:, start : start + width] += 150
        image[size // 2 :] //= 2
    return images, labels


def train(images, labels, **changes):
    arguments = {"dim": 16, "epochs": 6, "batch_size": 32, "lr": 0.005, "seed": 0}
    return extractor_training.train_extractor(
        images, labels, n_classes=None if labels is None else 3, **(arguments | changes)
    )


@pytest.fixture(scope="module")
def data():
    return bars(400)


@pytest.fixture(scope="module")
def trained(data):
    return train(*data)


def test_learns_the_classes(trained):
    assert extractor.accuracy(trained, *bars(200, seed=1)) > 0.95


def test_without_labels_learns_the_rotations(data):
    model = train(data[0], None)
    assert model.n_outputs == 4
    assert extractor.accuracy(model, bars(100, seed=1)[0], None) > 0.9


def test_features_are_standardised_on_the_training_images(trained, data):
    features, logits = extractor.extract(trained, data[0])
    assert features.dtype == logits.dtype == np.float32
    assert features.shape == (400, trained.n_features)
    assert logits.shape == (400, 3)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(features.std(axis=0, ddof=1), 1, rtol=1e-4)


def test_units_that_never_fire_are_dropped(trained):
    raw = torch.randn(50, 16)
    raw[:, 3] = -raw[:, 3].abs() - 0.1
    raw[:, 7] = 2.0
    model = extractor.Extractor(image_size=16, channels=1, n_outputs=3, dim=16)
    model.standardise(raw)
    assert model.keep.tolist() == [i for i in range(16) if i not in (3, 7)]
    assert model.n_features == 14


def test_save_and_load_give_identical_features(trained, data, tmp_path):
    config = extractor.save(trained, tmp_path, {"task": "classes", "val_accuracy": 0.9})
    loaded = extractor.load(tmp_path)
    assert extractor.load_config(tmp_path) == config
    for ours, theirs in zip(
        extractor.extract(trained, data[0]), extractor.extract(loaded, data[0]), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_digest_names_weights_and_facts(trained, tmp_path):
    facts = {"task": "classes", "val_accuracy": 0.9}
    first = extractor.save(trained, tmp_path, facts)
    assert extractor.save(trained, tmp_path, facts) == first
    other = extractor.Extractor(**trained.kwargs)
    assert extractor.save(other, tmp_path, facts)["digest"] != first["digest"]


def test_missing_extractor_names_the_stage_to_run(tmp_path):
    with pytest.raises(UserError, match="dvc repro features"):
        extractor.load(tmp_path)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_state_alone(data):
    images, labels = data[0][:100], data[1][:100]
    before = torch.random.get_rng_state()
    first, second, other = (train(images, labels, epochs=1, seed=s) for s in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    for name, weights in first.state_dict().items():
        assert torch.equal(weights, second.state_dict()[name]), name
    assert not torch.equal(first.last.weight, other.last.weight)


def test_floats_and_bytes_are_the_same_images(trained, data):
    images = torch.from_numpy(data[0][:10])
    floats = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    for a, b in zip(trained(images), trained(floats), strict=True):
        torch.testing.assert_close(a, b)


def test_batches_give_what_the_whole_gives(trained, data):
    whole, pieces = (extractor.extract(trained, data[0], batch_size=n)[0] for n in (400, 33))
    np.testing.assert_allclose(whole, pieces, atol=1e-4)


def test_extraction_tells_its_progress(trained, data):
    heard = []
    extractor.extract(trained, data[0][:7], batch_size=3, on_batch=heard.append)
    assert heard == [3, 3, 1]


@pytest.mark.parametrize(
    ("size", "channels"), [(8, 1), (16, 3), (28, 1), (32, 3), (100, 3), (256, 1)]
)
def test_any_size_and_channels(size, channels):
    model = extractor.Extractor(image_size=size, channels=channels, n_outputs=4, dim=8)
    features, logits = extractor.extract(model, np.zeros((2, size, size, channels), np.uint8))
    assert features.shape == (2, 8)
    assert logits.shape == (2, 4)


def test_fewer_images_than_a_batch_and_one_epoch(data):
    model = train(data[0][:10], data[1][:10], epochs=1, batch_size=64)
    assert np.isfinite(extractor.extract(model, data[0][:10])[1]).all()


def test_on_epoch_hears_of_every_epoch(data):
    losses = []
    train(*data, epochs=3, on_epoch=lambda epoch, loss: losses.append((epoch, loss)))
    assert [epoch for epoch, _ in losses] == [0, 1, 2]
    assert losses[-1][1] < losses[0][1]


def test_gradients_flow_through_a_trained_extractor(trained):
    images = torch.zeros(2, 1, 16, 16, requires_grad=True)
    trained(images)[0].sum().backward()
    assert images.grad is not None


def test_shift_moves_each_image_whole_and_repeats_the_edge():
    images = np.arange(36, dtype=np.uint8).reshape(1, 6, 6, 1).repeat(50, axis=0)
    moved = extractor_training.shift(images, np.random.default_rng(0), 1)
    padded = np.pad(images[0], ((1, 1), (1, 1), (0, 0)), mode="edge")
    windows = {padded[i : i + 6, j : j + 6].tobytes() for i in range(3) for j in range(3)}
    assert {image.tobytes() for image in moved} == windows


def test_rotate_turns_by_quarters():
    image = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
    turned = extractor.rotate(image.repeat(2, axis=0), np.array([0, 1]))
    assert turned[:, :, :, 0].tolist() == [[[0, 1], [2, 3]], [[1, 3], [0, 2]]]


CENTRES = [[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]]


def test_points_are_their_own_features_and_logits_are_log_densities(tmp_path):
    points = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    model = extractor.Points(centres=CENTRES, sigma=0.5)
    features, logits = extractor.extract(model, points, batch_size=7)
    np.testing.assert_array_equal(features, points)
    squares = ((points[:, None] - np.array(CENTRES)) ** 2).sum(axis=2)
    np.testing.assert_allclose(logits, -squares / (2 * 0.5**2), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(logits.argmax(axis=1), squares.argmin(axis=1))
    config = extractor.save(model, tmp_path, {"task": "none"})
    assert config["kind"] == "points"
    loaded = extractor.load(tmp_path)
    np.testing.assert_array_equal(extractor.extract(loaded, points)[1], logits)


@pytest.fixture(scope="module")
def stacks():
    """Stacks of the bars: their images' classes a, b, c (of three) make 9a + 3b + c."""
    images, labels = zip(*(bars(300, seed=seed) for seed in (1, 2, 3)), strict=True)
    return np.concatenate(images, axis=3), labels[0] * 9 + labels[1] * 3 + labels[2]


def test_a_stack_is_told_by_an_extractor_of_single_images(stacks, tmp_path):
    images, labels = stacks
    model = extractor_training.train_stacked(
        images, labels, n_classes=27, dim=16, epochs=6, batch_size=32, lr=0.005, seed=0
    )
    features, logits = extractor.extract(model, images)
    assert logits.shape == (300, 27)
    assert features.shape == (300, 3 * model.single.n_features)
    np.testing.assert_allclose(np.exp(logits).sum(axis=1), 1, rtol=1e-4)
    assert extractor.accuracy(model, images, labels) > 0.9
    single = extractor.extract(model.single, images[..., 1:2])
    np.testing.assert_allclose(np.split(features, 3, axis=1)[1], single[0], atol=1e-5)
    assert extractor.save(model, tmp_path, {})["kind"] == "stacked"
    loaded = extractor.load(tmp_path)
    np.testing.assert_array_equal(extractor.extract(loaded, images)[1], logits)


@pytest.mark.parametrize(
    ("accuracy", "chance", "n", "blind"),
    [
        (0.5, 0.5, 60, True),  # two classes, all taken for one
        (0.6, 0.5, 60, True),  # not shown to be more than chance
        (0.53, 0.5, 10_000, True),  # shown to be more, but hardly
        (0.95, 0.95, 1000, True),  # all taken for the larger class
        (0.97, 0.91, 1000, False),  # of one class in twenty some are told
        (0.9, 0.5, 20, False),
        (0.15, 0.01, 1000, False),  # few of a hundred classes, but what it says is seen
        (0.984, 0.1, 500, False),
    ],
)
def test_an_extractor_near_chance_is_told(accuracy, chance, n, blind):
    assert extractor.Told("classes", accuracy, chance, n).blind == blind


def of_val(folder, labels: np.ndarray, answers: np.ndarray, n_classes: int) -> prepared.Prepared:
    """Prepared data, and an extractor that gives these answers on val."""
    np.save(folder / "val.npy", np.zeros((len(labels), 8, 8, 1), np.uint8))
    np.save(folder / "val_labels.npy", labels)
    np.save(folder / "val_logits.npy", np.eye(n_classes, dtype="f")[answers])
    manifest = {
        "kind": "image",
        "source": "folder",
        "class_names": [str(k) for k in range(n_classes)],
        "splits": {"train": {"class_counts": [50] * n_classes}, "val": {"n": len(labels)}},
    }
    return prepared.Prepared(manifest, folder)


def test_to_an_extractor_that_tells_no_classes_data_are_without_labels(tmp_path):
    labels = np.arange(60) % 2
    data = of_val(tmp_path, labels, np.zeros_like(labels), 2)
    found = extractor.told(data, tmp_path)
    assert (found.accuracy, found.chance, found.blind) == (0.5, 0.5, True)
    assert "cannot tell the classes" in found.text
    assert "50.0% of the held-out images" in found.text
    seen = extractor.as_seen(data, tmp_path)
    assert seen["splits"]["train"]["class_counts"] is None
    assert data.manifest["splits"]["train"]["class_counts"] == [50, 50]


def test_where_classes_cannot_be_told_training_and_evaluation_count_groups(
    trained, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    paths.FEATURES.mkdir(parents=True)
    images, labels = bars(60, seed=2)
    extractor.save(trained, paths.FEATURES, {"task": "classes"})
    features, _ = extractor.extract(trained, images)
    for answers, labelled in ((np.zeros_like(labels), False), (labels, True)):
        data = of_val(paths.FEATURES, labels, answers, 3)
        np.save(paths.FEATURES / "val.npy", features)  # `of_val` wrote images there
        device = torch.device("cpu")
        watch = Monitor(data, n=30, seed=0, conditional=True, device=device)
        assert watch.reference.labelled == labelled
        assert sorted(set(watch.labels)) == [0, 1, 2]  # which are asked for is known all the same
        judge = scoring.Judge(data, trained, {}, None, evaluation.Settings(), False, 30, device)
        counts = judge.manifest["splits"]["train"]["class_counts"]
        assert counts == ([50, 50, 50] if labelled else None)


def test_to_one_that_tells_them_data_are_as_they_are(tmp_path):
    labels = np.arange(60) % 2
    data = of_val(tmp_path, labels, labels, 2)
    assert extractor.as_seen(data, tmp_path) is data.manifest
    alone = of_val(tmp_path, 0 * labels, 0 * labels, 1)
    assert extractor.as_seen(alone, tmp_path) is alone.manifest


def test_rotations_are_told_by_the_accuracy_that_was_kept(tmp_path):
    np.save(tmp_path / "val.npy", np.zeros((100, 8, 8, 1), np.uint8))
    manifest = {"kind": "image", "class_names": None, "splits": {}}
    data = prepared.Prepared(manifest, tmp_path)
    for accuracy, blind in ((0.27, True), (0.9, False)):
        files.write_json(tmp_path / "config.json", {"val_accuracy": accuracy})
        found = extractor.told(data, tmp_path)
        assert (found.blind, "rotations" in found.text) == (blind, True)
    assert extractor.as_seen(data, tmp_path) is manifest
