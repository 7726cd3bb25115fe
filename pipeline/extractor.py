"""The data set's own feature extractor: a small CNN, taught in the `features` stage.

Its penultimate layer, before the last non-linearity, is the space in which samples are judged.
Points are their own features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline import files, parallel, paths
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.metrics.intervals import wilson
from pipeline.precision import full_float32

WEIGHTS = "extractor.safetensors"
CONFIG = "config.json"
ROTATIONS = 4
CHANNELS = 3  # of a stack
# An extractor tells classes if it gets surely more than this share right of what chance leaves.
LEAST_TOLD = 0.1


class Extractor(nn.Module):
    """Features and logits of images.

    Every stage halves the picture until 7 pixels or fewer are left. `dim` units follow; those
    that never fire on the training images are dropped and the rest standardised by the training
    images' mean and deviation, so that features have `n_features` <= `dim` columns.
    """

    keep: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        n_outputs: int,
        dim: int = 128,
        width: int = 16,
        n_features: int | None = None,
    ) -> None:
        super().__init__()
        n_features = dim if n_features is None else n_features
        self.kwargs: dict[str, Any] = {
            "image_size": image_size,
            "channels": channels,
            "n_outputs": n_outputs,
            "dim": dim,
            "width": width,
            "n_features": n_features,
        }
        stages: list[nn.Module] = []
        size, n_in, n_out = image_size, channels, width
        while size > 7 or not stages:
            # Convolving a large picture at full size costs most and sees least.
            stages += _strided(n_in, n_out) if size > 32 else _pooled(n_in, n_out)
            size = (size + 1) // 2
            n_in, n_out = n_out, min(2 * n_out, 8 * width)
        self.stages = nn.Sequential(*stages, *_pooled(n_in, n_out), nn.Flatten())
        size = (size + 1) // 2
        self.penultimate = nn.Linear(n_out * size * size, dim)
        self.last = nn.Linear(dim, n_outputs)
        self.register_buffer("keep", torch.arange(n_features))
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("std", torch.ones(n_features))

    @property
    def n_features(self) -> int:
        return self.kwargs["n_features"]

    @property
    def n_outputs(self) -> int:
        return self.kwargs["n_outputs"]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, d) and logits (N, K).

        Of images uint8 (N, H, W, C), or float in [-1, 1] (N, C, H, W).
        """
        raw = self.raw_features(images)
        features = (raw[:, self.keep] - self.mean) / self.std
        return features, self.last(F.relu(raw))

    def raw_features(self, images: Tensor) -> Tensor:
        """All (N, dim) penultimate units, not standardised."""
        if images.dtype == torch.uint8:
            images = images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
        return self.penultimate(self.stages(images))

    def standardise(self, raw: Tensor) -> None:
        """Drop the units dead on `raw` (N, dim), the training images', and scale the rest by it."""
        alive = (raw > 0).any(dim=0) & (raw.std(dim=0) > 1e-6)
        self.keep = alive.nonzero().flatten()
        self.mean = raw[:, self.keep].mean(dim=0)
        self.std = raw[:, self.keep].std(dim=0)
        self.kwargs["n_features"] = len(self.keep)


class Points(nn.Module):
    """Points of a known mixture: centres (K, 2) and their deviation.

    The features of a point are the point; its logits the log-densities of the equally likely
    modes, so that the largest is that of the nearest one.
    """

    centres: Tensor
    n_features = 2

    def __init__(self, *, centres: Sequence[Sequence[float]], sigma: float) -> None:
        super().__init__()
        self.kwargs: dict[str, Any] = {
            "centres": [list(centre) for centre in centres],
            "sigma": sigma,
        }
        self.register_buffer("centres", torch.tensor(self.kwargs["centres"]))
        self.sigma, self.n_outputs = sigma, len(centres)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 2) and logits (N, K) of points (N, 2)."""
        squares = (points[:, None] - self.centres).square().sum(dim=2)
        return points, -squares / (2 * self.sigma**2)


class Stacked(nn.Module):
    """Stacks of three gray images, by an extractor of single ones (of ten classes).

    Features are those of the channels side by side; logits the joint log-probabilities of all
    triples of classes (a, b, c), at 100a + 10b + c.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.single = Extractor(**kwargs)

    @property
    def kwargs(self) -> dict[str, Any]:
        return self.single.kwargs

    @property
    def n_features(self) -> int:
        return CHANNELS * self.single.n_features

    @property
    def n_outputs(self) -> int:
        return self.single.n_outputs**CHANNELS

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 3d) and logits (N, K³) of stacks uint8 (N, H, W, 3)."""
        seen = [self.single(images[..., [channel]]) for channel in range(CHANNELS)]
        a, b, c = (logits.log_softmax(dim=1) for _, logits in seen)
        joint = a[:, :, None, None] + b[:, None, :, None] + c[:, None, None, :]
        return torch.cat([features for features, _ in seen], dim=1), joint.flatten(1)


def _strided(n_in: int, n_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
    ]


def _pooled(n_in: int, n_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
    ]


def rotate(images: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Each square image (N, S, S, C) turned by its number of quarter turns."""
    return np.stack([np.rot90(image, int(k)) for image, k in zip(images, turns, strict=True)])


def on_device(images: np.ndarray, device: str | torch.device) -> Tensor:
    """Some of a data set's images as a tensor."""
    return torch.from_numpy(np.array(images)).to(device)  # a copy: a memory map is read-only


def extract(
    extractor: AnyExtractor,
    images: np.ndarray,
    *,
    batch_size: int = 500,
    device: str | torch.device = "cpu",
    on_batch: Callable[[int], None] = lambda n: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, d) and logits (N, K), float32, of uint8 images (N, H, W, C) or points (N, 2).

    `on_batch` hears how many images of each batch are done. Several processes take a part each, and
    all get all.
    """
    extractor.to(device).eval()
    n, images = len(images), images[parallel.rows(len(images))]
    features = np.empty((len(images), extractor.n_features), np.float32)
    logits = np.empty((len(images), extractor.n_outputs), np.float32)
    with torch.inference_mode(), full_float32():
        for i in range(0, len(images), batch_size):
            f, z = extractor(on_device(images[i : i + batch_size], device))
            features[i : i + batch_size] = f.cpu().numpy()
            logits[i : i + batch_size] = z.cpu().numpy()
            on_batch(len(f) * parallel.size())
    return parallel.all_gather_rows(features, n), parallel.all_gather_rows(logits, n)


def accuracy(
    extractor: AnyExtractor,
    images: np.ndarray,
    labels: np.ndarray | None,
    *,
    device: str | torch.device = "cpu",
) -> float:
    """Share told right on held-out images: their classes, or without labels all four rotations."""
    if labels is not None:
        _, logits = extract(extractor, images, device=device)
        return float((logits.argmax(axis=1) == labels).mean())
    hits = []
    for k in range(ROTATIONS):
        turned = rotate(images, np.full(len(images), k))
        _, logits = extract(extractor, turned, device=device)
        hits.append((logits.argmax(axis=1) == k).mean())
    return float(np.mean(hits))


@dataclass(frozen=True)
class Told:
    """How an extractor did its `task`, classes or rotation, on `n` held-out images.

    `chance` is the share that its answers would get right were they dealt out at random.
    """

    task: str
    accuracy: float
    chance: float
    n: int

    @property
    def blind(self) -> bool:
        """Near chance: the accuracy's lower bound has no tenth of the way from there to all."""
        low, _ = wilson(self.accuracy * self.n, self.n)
        return low <= self.chance + LEAST_TOLD * (1 - self.chance)

    @property
    def text(self) -> str:
        """What a blind one is: half a sentence."""
        what = "classes" if self.task == "classes" else "rotations"
        return (
            f"the feature extractor cannot tell the {what}: it names {self.accuracy:.1%} of the "
            f"held-out images right, and chance {self.chance:.1%}"
        )


def told(data: Prepared, folder: Path = paths.FEATURES) -> Told | None:
    """How the extractor in `folder` did on the val split; None where there is nothing to tell."""
    if data.points or data.n_classes == 1:
        return None
    val = data.split("val")
    if val.labels is None:  # each image in all rotations, so that no answer has a favourite
        return Told("rotation", load_config(folder)["val_accuracy"], 1 / ROTATIONS, len(val))
    answers = np.load(Path(folder) / "val_logits.npy").argmax(axis=1)
    given, right = (
        np.bincount(x, minlength=data.n_classes) / len(val) for x in (answers, val.labels)
    )
    accuracy = float((answers == val.labels).mean())
    return Told("classes", accuracy, float(given @ right), len(val))


def as_seen(data: Prepared, folder: Path = paths.FEATURES) -> dict[str, Any]:
    """The manifest of the data as the extractor in `folder` sees them.

    To one that cannot tell the classes they are without labels: what it says of samples would be
    taken for classes that are missing.
    """
    found = told(data, folder) if data.n_classes else None
    if found is None or not found.blind:
        return data.manifest
    splits = data.manifest["splits"]
    train = {**splits["train"], "class_counts": None}
    return {**data.manifest, "splits": {**splits, "train": train}}


def save(extractor: AnyExtractor, folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write weights and config.json into `folder`. Returns the config.

    `facts` (task, accuracy, ...) join the architecture in it; `digest` names weights and config.
    """
    from safetensors.torch import save as to_bytes

    tensors = {name: t.cpu().contiguous() for name, t in extractor.state_dict().items()}
    files.write_bytes(folder / WEIGHTS, to_bytes(tensors))
    kind = next(name for name, known in KINDS.items() if type(extractor) is known)
    config = {
        "kind": kind,
        "model": extractor.kwargs,
        "sha256": files.file_hash(folder / WEIGHTS),
        **facts,
    }
    config["digest"] = files.json_hash(config)
    files.write_json(folder / CONFIG, config)
    return config


def load_config(folder: Path = paths.FEATURES) -> dict[str, Any]:
    """The config beside the weights. UserError where the features stage has not run."""
    path = Path(folder) / CONFIG
    if not path.exists():
        raise UserError(f"{path} is missing: run `dvc repro features` first")
    return files.read_json(path)


def load(folder: Path = paths.FEATURES) -> AnyExtractor:
    """The extractor that `save` wrote, in evaluation mode. UserError where there is none."""
    from safetensors.torch import load_file

    config = load_config(folder)
    extractor = KINDS[config["kind"]](**config["model"])
    extractor.load_state_dict(load_file(Path(folder) / WEIGHTS))
    extractor.to(memory_format=torch.channels_last)
    return extractor.eval().requires_grad_(False)


AnyExtractor = Extractor | Points | Stacked
KINDS: dict[str, type[AnyExtractor]] = {
    "images": Extractor,
    "points": Points,
    "stacked": Stacked,
}
