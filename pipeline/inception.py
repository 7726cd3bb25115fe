"""Inception-v3 as torch-fidelity has it: the features of the standard FID, KID and Inception score.

torch-fidelity's network and formulas are called piece by piece rather than through its
`calculate_metrics`, whose cache knows the reals by a name. It is imported where it is used, as that
takes seconds.
"""

from __future__ import annotations

import io
import logging
import pickle
import sys
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline import files, parallel, paths
from pipeline.errors import UserError
from pipeline.precision import full_float32
from pipeline.progress import bar

if TYPE_CHECKING:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

log = logging.getLogger(__name__)

# SHA-256 of the file that torch-fidelity downloads: TensorFlow's Inception of 2015, on which FID
# was defined.
STANDARD = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
NETWORK = "inception-v3-compat"
LAYERS = ("2048", "logits_unbiased")
# torch-fidelity's own: batches of another size are rounded otherwise.
BATCH = 64
KID_SUBSET = 1000


@dataclass(frozen=True)
class Weights:
    """A file of weights and the SHA-256 of its content."""

    path: Path
    sha256: str

    @property
    def standard(self) -> bool:
        return self.sha256 == STANDARD

    @property
    def extractor(self) -> str:
        """What a protocol calls the extractor that they make."""
        return "inception" if self.standard else "inception (custom weights)"


def address() -> str:
    """Where torch-fidelity says that its weights can be downloaded."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    return str(URL_INCEPTION_V3)


def place(given: str | None) -> Path:
    """Where the weights are, or should be: `given`, or the file of torch-fidelity's own download.

    A relative path starts at the repository, also in a DVC experiment's temporary copy of it.
    """
    if given is not None:
        return paths.shared_root() / Path(given).expanduser()
    return Path(torch.hub.get_dir()) / "checkpoints" / address().rpartition("/")[2]


def find(given: str | None) -> Weights:
    """The weights at `place(given)`; torch-fidelity's own are downloaded where they are missing.

    Any file may be `given`, but other weights than the standard ones are warned of. Raises
    UserError where there is no file, or the downloaded one is damaged.
    """
    path = place(given)
    if given is not None and not path.is_file():
        raise UserError(f"evaluate.inception_weights: {path} does not exist. {way_out()}")
    if given is None and not path.exists():
        _download(path)
    weights = Weights(path, files.file_hash(path))
    if weights.standard:
        return weights
    if given is None:
        raise UserError(
            f"{path} is damaged (SHA-256 {weights.sha256[:8]}..., not {STANDARD[:8]}...): delete "
            "it and run the same command again"
        )
    log.warning(
        "%s are not the standard weights (SHA-256 %s..., not %s...): the fid is no standard one",
        path,
        weights.sha256[:8],
        STANDARD[:8],
    )
    return weights


def way_out() -> str:
    """How to come by the weights without this machine's network."""
    return (
        f"Get torch-fidelity's weights, {address()} (91 MiB), with a machine that has a network, "
        f"and name the file in evaluate.inception_weights or put it at {place(None)}; or set "
        "evaluate.extractor to domain, which needs no download."
    )


def _download(path: Path) -> None:
    log.info("downloading Inception's weights to %s", path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(
            address(), str(path), hash_prefix=STANDARD, progress=sys.stderr.isatty()
        )
    except (OSError, HTTPException, RuntimeError) as error:  # the last: a wrong hash
        reason = getattr(error, "reason", error)
        raise UserError(
            f"Inception's weights could not be downloaded ({reason}). {way_out()}"
        ) from error


def load(weights: Weights) -> FeatureExtractorInceptionV3:
    """The network, in evaluation mode. Raises UserError where the file holds no weights for it."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    wrong = f"{weights.path} holds no weights of torch-fidelity's Inception. {way_out()}"
    try:
        state = torch.load(weights.path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(wrong) from error
    # torch-fidelity would unpickle any object: it gets what has been read safely, written anew.
    clean = io.BytesIO()
    torch.save(state, clean)
    clean.seek(0)
    try:
        return FeatureExtractorInceptionV3(
            NETWORK, list(LAYERS), feature_extractor_weights_path=clean
        )
    except (RuntimeError, TypeError) as error:
        raise UserError(wrong) from error


def extract(
    network: FeatureExtractorInceptionV3,
    images: np.ndarray,
    *,
    device: str | torch.device = "cpu",
    title: str = "inception, images",
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 2048) and logits without bias (N, 1008), float32, of uint8 (N, H, W, C) images.

    Gray images are repeated to three channels. A bar called `title` shows progress: a CPU's core
    sees some five images a second. Several processes take a part each, and all get all.
    """
    network.to(device)
    features, logits = [], []
    n, images = len(images), images[parallel.rows(len(images))]
    with torch.inference_mode(), full_float32(), bar(title, len(images)) as advance:
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(np.array(images[start : start + BATCH])).permute(0, 3, 1, 2)
            seen = network(batch.expand(-1, 3, -1, -1).contiguous().to(device))
            features.append(seen[0].cpu().numpy())
            logits.append(seen[1].cpu().numpy())
            advance(len(batch))
    found = np.concatenate(features), np.concatenate(logits)
    return parallel.all_gather_rows(found[0], n), parallel.all_gather_rows(found[1], n)


def real_features(
    network: FeatureExtractorInceptionV3,
    weights: Weights,
    images: np.ndarray,
    images_sha256: str,
    *,
    device: str | torch.device = "cpu",
    title: str = "inception, reals",
) -> np.ndarray:
    """`extract`'s features (N, 2048) of real images, from the cache where they are in it.

    `images_sha256` names the split of which `images` are the first; a cached file is named by that,
    their shape, the weights and torch-fidelity's version, so that it cannot be of anything else.
    Of several processes only the first gets them.
    """
    key = files.json_hash(
        [NETWORK, version("torch-fidelity"), weights.sha256, images_sha256, list(images.shape)]
    )
    path = paths.feature_cache() / f"{key}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    first = parallel.rank() == 0
    with parallel.locked(path.with_suffix(".lock")):  # an equal evaluation waits, rather than works
        if not parallel.broadcast_object(path.exists()):
            features, _ = extract(network, images, device=device, title=title)
            if first:
                with files.atomic_file(path) as fresh, fresh.open("wb") as file:
                    np.save(file, features)
    if not first:
        return np.empty((0, 2048), np.float32)
    return np.load(path)


def fid(fakes: np.ndarray, reals: np.ndarray) -> float:
    """Fréchet Inception distance of features (N, 2048) and (M, 2048), as torch-fidelity has it.

    Its trace of the root is off by some 1e-6 where N or M is 2048 or less. The standard figure is
    the one with that error.
    """
    from torch_fidelity import metric_fid

    statistics = [
        metric_fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (fakes, reals)
    ]
    return metric_fid.fid_statistics_to_metric(*statistics, verbose=False)[
        metric_fid.KEY_METRIC_FID
    ]


def kid(fakes: np.ndarray, reals: np.ndarray) -> float:
    """Kernel Inception distance of features (N, 2048) and (M, 2048), as torch-fidelity has it.

    A set of fewer than 1,000 cuts the subsets to its size.
    """
    from torch_fidelity import metric_kid

    return metric_kid.kid_features_to_metric(
        torch.from_numpy(fakes),
        torch.from_numpy(reals),
        kid_subset_size=min(KID_SUBSET, len(fakes), len(reals)),
        verbose=False,
    )[metric_kid.KEY_METRIC_KID_MEAN]
