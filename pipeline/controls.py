"""What is planted among the reals, to prove that the metrics of a data set see it."""

from __future__ import annotations

import numpy as np

from pipeline.metrics import frechet, modes
from pipeline.reference import Reference


def controls(reference: Reference, *, seed: int = 0) -> dict[str, bool]:
    """Do the metrics see what is planted, and nothing where there is nothing to see?

    real_vs_real: the distance between two random halves of the reals is compatible with 0 (four
    deviations of the bootstrap); where they are few, in as many random directions of the features
    as the bootstrap knows the bias for. dropped_class: without their largest class the reals'
    label_kl rises by at least half of what it should; left out where there is one class only.
    """
    rng = np.random.default_rng(seed)
    halves = np.array_split(rng.permutation(len(reference.features)), 2)
    features, known = reference.features, max(len(halves[1]) // frechet.FOR_BIAS, 1)
    if features.shape[1] > known:
        directions = np.linalg.qr(rng.normal(size=(features.shape[1], known)))[0]
        features = features @ directions
    first, second = (features[half] for half in halves)
    low, _ = frechet.interval(first, second, resamples=50, seed=seed, sds=4)
    result = {"real_vs_real": low <= 0}
    counts = np.bincount(reference.groups, minlength=len(reference.frequencies))
    largest = counts.argmax()
    if 0 < counts[largest] < len(reference.groups):
        # Against the reals' own frequencies: against those of a few thousand others, a small set
        # that happens to have too many of its largest class would look better without it.
        own = counts / counts.sum()
        rest = reference.groups[reference.groups != largest]
        rise = modes.label_kl(rest, own) - modes.label_kl(reference.groups, own)
        result["dropped_class"] = bool(rise >= -np.log(1 - own[largest]) / 2)
    return result
