"""What extraction and its training give, alone or shared: `torchrun -m tests.shared_cases FOLDER`.

Each process writes what it found, by its number.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from pipeline import cas, extractor, extractor_training, launch, parallel

from .test_cas import TRAINING
from .test_extractor import bars, train

HASTY = TRAINING | {"epochs": 1, "lr": 0.001, "seed": 3}  # stops short of telling all


def found() -> dict[str, Any]:
    """Of 401 images, so that the parts of two processes differ."""
    images, labels = bars(401)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = extractor.Extractor(image_size=16, channels=1, n_outputs=3, dim=16).eval()
    rows: list[int] = []
    network.stages.register_forward_hook(lambda module, given, made: rows.append(len(made)))
    raw = extractor_training._raw_features(network, images, device="cpu")
    passed = sum(rows)
    trained = train(images, labels, epochs=1)
    return {
        "raw": raw,
        "rows": passed,
        "features": torch.from_numpy(extractor.extract(trained, images)[0]),
        "cas": cas.score(images, labels, *bars(200, seed=1), training=HASTY),
    }


def main(folder: Path) -> None:
    distributed.init_process_group("gloo")
    number, told = parallel.rank(), found()
    first = launch.leave()
    told |= {"first": first, "threads": torch.get_num_threads()}
    torch.save(told, folder / str(number))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
