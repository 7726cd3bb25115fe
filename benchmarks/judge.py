"""Judge a generator of digits by a classifier that the pipeline does not use for anything else.

A LeNet is trained on all 60,000 MNIST training digits (once; its weights are kept in .cache/) and
looks at 5,000 samples: Fréchet distance to the 10,000 test digits as a ratio to that of 5,000 real
training digits, KL of the label histogram, mean confidence in the top class, and the median
distance of a sample to its nearest fellow as a ratio to that of real digits.

Another 5,000 samples of the same generator move the ratio by 0.3 and another LeNet by 0.2, so all
figures are means over several of both; `fd_ratio_low` and `fd_ratio_high` are the extremes.

    python benchmarks/judge.py --mnist PATH/mnist.parquet [--generator models/generator]
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pipeline import grids
from pipeline.metrics import frechet
from pipeline.networks.build import load_generator
from pipeline.sampling import class_labels, sample_images
from pipeline.training.numerics import pick_precision

CACHE = Path(".cache")
SAMPLES = 5000


class LeNet(nn.Module):
    """uint8 (N, 28, 28, 1) -> 128 features before their non-linearity, and 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 49, 128),
        )  # fmt: skip
        self.head = nn.Linear(128, 10)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
        return features, self.head(F.relu(features))


def read_mnist(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images uint8 (N, 28, 28, 1) and labels of the splits `train` and `test`."""
    import pandas as pd
    from PIL import Image

    table = pd.read_parquet(path, columns=["image", "label", "split"])
    splits = {}
    for split, rows in table.groupby("split"):
        images = [np.asarray(Image.open(io.BytesIO(data))) for data in rows["image"]]
        splits[str(split)] = (np.stack(images)[..., None], rows["label"].to_numpy(np.int64))
    return splits


def train_judge(images: np.ndarray, labels: np.ndarray, seed: int, epochs: int = 6) -> LeNet:
    torch.manual_seed(seed)
    judge = LeNet().train()
    optimizer = torch.optim.Adam(judge.parameters())
    steps = epochs * (len(images) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    precision = pick_precision("auto", torch.device("cpu"))
    for epoch in range(epochs):
        for chosen in torch.randperm(len(x))[: len(x) // 128 * 128].view(-1, 128):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
                loss = F.cross_entropy(judge(x[chosen])[1], y[chosen])
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"judge {seed}: epoch {epoch + 1} of {epochs}", flush=True)
    return judge.eval()


@torch.inference_mode()
def look(judge: LeNet, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 128) and class probabilities (N, 10)."""
    parts = [judge(torch.from_numpy(images[i : i + 1000])) for i in range(0, len(images), 1000)]
    features = torch.cat([part[0] for part in parts]).double().numpy()
    return features, torch.cat([part[1] for part in parts]).softmax(1).numpy()


def the_judge(splits: dict[str, tuple[np.ndarray, np.ndarray]], seed: int) -> LeNet:
    """The kept judge of this seed, or a new one, trained and kept."""
    from safetensors.torch import load_file, save_file

    kept = CACHE / f"judge{seed}.safetensors"
    if kept.exists():
        judge = LeNet().eval()
        judge.load_state_dict(load_file(kept))
        return judge
    judge = train_judge(*splits["train"], seed)
    CACHE.mkdir(exist_ok=True)
    save_file(judge.state_dict(), kept)
    return judge


class Bench:
    """The judge and what it sees of real digits; `score` holds samples against them."""

    def __init__(self, splits: dict[str, tuple[np.ndarray, np.ndarray]], seed: int = 0) -> None:
        self.judge = the_judge(splits, seed)
        test_images, test_labels = splits["test"]
        self.digits = np.random.default_rng(1).permutation(test_images)
        self.test, probabilities = look(self.judge, test_images)
        self.accuracy = float((probabilities.argmax(1) == test_labels).mean())
        self.confidence = float(probabilities.max(1).mean())
        chosen = np.random.default_rng(0).choice(60_000, SAMPLES, replace=False)
        self.train, _ = look(self.judge, splits["train"][0][chosen])
        self.floor = frechet.distance(self.train, self.test)
        self.frequencies = np.bincount(splits["train"][1], minlength=10) / 60_000

    def score(self, samples: np.ndarray, frequencies: np.ndarray | None = None) -> dict[str, float]:
        """Figures of 5,000 samples uint8 (N, 28, 28, 1); label KL against `frequencies`."""
        features, probabilities = look(self.judge, samples)
        shares = np.bincount(probabilities.argmax(1), minlength=10) / len(samples)
        expected = self.frequencies if frequencies is None else frequencies
        present = shares > 0
        kl = (shares[present] * np.log(shares[present] / expected[present])).sum()
        return {
            "fd": frechet.distance(features, self.test),
            "fd_ratio": frechet.distance(features, self.test) / self.floor,
            "label_kl": float(kl),
            "confidence": float(probabilities.max(1).mean()),
            "selfnn_ratio": median_neighbour(features) / median_neighbour(self.train),
        }


def median_neighbour(features: np.ndarray) -> float:
    """Median distance of a point to its nearest fellow."""
    from sklearn.neighbors import NearestNeighbors

    distances, _ = NearestNeighbors(n_neighbors=2).fit(features).kneighbors(features)
    return float(np.median(distances[:, 1]))


def save_picture(path: Path, samples: np.ndarray, digits: np.ndarray) -> None:
    """Uncurated samples on the left, real digits on the right, each uint8 (100, 28, 28, 1)."""
    left, right = (grids.grid(images, 10) for images in (samples, digits))
    space = np.full((len(left), 16, 1), 255, np.uint8)
    grids.save_png(path, np.hstack([left, space, right]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, required=True, help="parquet file of all of MNIST")
    parser.add_argument("--generator", type=Path, default=Path("models/generator"))
    parser.add_argument("--which", choices=["best", "last"], default="best")
    parser.add_argument("--judges", type=int, default=2)
    parser.add_argument("--draws", type=int, default=3, help="of 5,000 samples each")
    parser.add_argument("--picture", type=Path, help="write samples beside real digits to this PNG")
    arguments = parser.parse_args()
    splits = read_mnist(arguments.mnist)
    benches = [Bench(splits, seed) for seed in range(arguments.judges)]
    generator, config = load_generator(arguments.generator, which=arguments.which)
    counts = np.asarray(config["class_counts"])
    rows = []
    for seed in range(1, arguments.draws + 1):
        labels = class_labels(counts.tolist(), SAMPLES, seed) if config["n_classes"] else None
        samples = sample_images(generator, n=SAMPLES, seed=seed, labels=labels)
        rows += [bench.score(samples, counts / counts.sum()) for bench in benches]
        if arguments.picture and seed == 1:
            save_picture(arguments.picture, samples[:100], benches[0].digits[:100])
    figures = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    ratios = [row["fd_ratio"] for row in rows]
    figures |= {"fd_ratio_low": min(ratios), "fd_ratio_high": max(ratios)}
    figures["judge_accuracy"] = float(np.mean([bench.accuracy for bench in benches]))
    figures["confidence_real"] = float(np.mean([bench.confidence for bench in benches]))
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main()
