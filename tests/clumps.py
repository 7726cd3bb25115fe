"""Features in clumps, one a class, and a classifier that tells them apart."""

import numpy as np

CLASSES, D = 5, 12


def draw(n: int, seed: int, labels: np.ndarray | None = None):
    """Features in one clump a class, and the logits of a classifier that tells them apart."""
    rng = np.random.default_rng(seed)
    if labels is None:
        labels = rng.permutation(np.arange(n) % CLASSES)
    features = 4 * np.eye(CLASSES, D)[labels] + rng.normal(size=(n, D))
    logits = features[:, :CLASSES] * 2
    return features.astype(np.float32), logits.astype(np.float32)
