"""Do samples repeat the training images? Four detectors, each with what chance would give.

All rest on exact nearest neighbours in the space of the arrays that they are given: images' pixels,
or features. In pixels they see copies and slightly changed ones. They do not see an image that was
shifted, mirrored, recoloured or recomposed, nor a leak of anything but whole images; and a smooth
or nearly empty sample lies near to much, copied or not. No figure at its null proves privacy.

Held-out images must come from where the training images come from, and be none of them.
"""

from __future__ import annotations

import numpy as np

from pipeline.metrics import bins
from pipeline.metrics.intervals import null_rank, share_below_quantile, wilson
from pipeline.metrics.nearest import Points, fit, place, search

# From so many held-out images their nearest 0.1% are ten or more; below, the nearest 1% are used.
MANY_HELD_OUT = 10_000
FALSE_POSITIVES = 0.01
# Cells of `ct`: one for so many held-out images, at most so many, each with at least so many of
# held-out images and of fakes.
PER_CELL, MOST_CELLS, LEAST_IN_CELL = 100, 50, 20
CELLS_FITTED = 10_000
PLANTED, PLANTED_NOISE = 0.05, 0.02
# Held-out images below the threshold of `control`: with fewer it would be no more than chance.
NULL_RANK = 10


def audit(
    fakes: np.ndarray, train: np.ndarray, held_out: np.ndarray, *, seed: int = 0
) -> dict[str, float]:
    """All four detectors of fakes (N, ...) against train (M, ...) and held_out (H, ...), flattened.

    Keys: those of `nearcopy`, `nn_share`, `ct` and `mia`. Time: mainly that of two searches, N x M
    and H x M. Where there are more of them than max(10,000, H), as many training images are drawn
    for `mia`, and H for `nn_share`.
    """
    axes = fit(train, seed=seed)
    fake_points, train_points, held_points = (place(x, axes) for x in (fakes, train, held_out))
    rng = np.random.default_rng(seed)

    def draw(points: Points, n: int) -> Points:
        return points.take(np.sort(rng.choice(len(points), min(n, len(points)), replace=False)))

    fakes_to_train, _ = search(fake_points, train_points)
    held_to_train, _ = search(held_points, train_points)
    members = draw(train_points, max(len(held_out), MANY_HELD_OUT))
    equal = min(len(train), len(held_out))
    return {
        **nearcopy(fakes_to_train, held_to_train),
        **nn_share(
            *search(fake_points, draw(train_points, equal)),
            *search(fake_points, draw(held_points, equal)),
        ),
        **ct(
            fakes_to_train,
            held_to_train,
            *_cells(fake_points, train_points, held_points, seed=seed),
        ),
        **mia(search(members, fake_points)[0], search(held_points, fake_points)[0]),
    }


def nearcopy(fakes_to_train: np.ndarray, held_to_train: np.ndarray) -> dict[str, float]:
    """Share of fakes as near to a training image as the nearest 0.1% of held-out images are.

    From distances (N,) and (H,) to the nearest training image. Keys nearcopy_rate, its Wilson
    interval nearcopy_ci_low and nearcopy_ci_high, and nearcopy_null: the rate that a generator
    without memory has on average. Below 10,000 held-out images that is 1% in place of 0.1%, and a
    bound on the rate must be ten times as large: state it as a multiple of nearcopy_null. The
    interval is one for the share below this threshold; the threshold has an error of its own.
    """
    rate = 0.001 if len(held_to_train) >= MANY_HELD_OUT else 0.01
    rank = null_rank(len(held_to_train), rate)
    threshold = np.partition(held_to_train, rank - 1)[rank - 1]
    # "At or below": held-out images that are themselves in train must not hide exact copies.
    copies = int((fakes_to_train <= threshold).sum())
    low, high = wilson(copies, len(fakes_to_train))
    return {
        "nearcopy_rate": copies / len(fakes_to_train),
        "nearcopy_ci_low": low,
        "nearcopy_ci_high": high,
        "nearcopy_null": rank / (len(held_to_train) + 1),
    }


def nn_share(
    to_train: np.ndarray, nearest_train: np.ndarray, to_held: np.ndarray, nearest_held: np.ndarray
) -> dict[str, float]:
    """Share of fakes nearer to a training than to a held-out image; 1/2 without memory.

    From distances (N,) and indices (N,) of the nearest among equally many training and held-out
    images: among more of them one is nearer. Ties count half. Keys nn_share, nn_share_ci_low,
    nn_share_ci_high. Fakes around one image stand or fall together, so the interval is Wilson's
    with as many trials as the images they gather around are worth (Kish's effective number).
    """
    ties = to_train == to_held
    share = float(np.mean((to_train < to_held) + 0.5 * ties))
    of_train = to_train < to_held
    gathered = np.concatenate(
        [np.bincount(nearest_train[of_train]), np.bincount(nearest_held[~of_train])]
    )
    effective = len(to_train) ** 2 / np.sum(gathered.astype(np.float64) ** 2)
    low, high = wilson(share * effective, effective)
    return {"nn_share": share, "nn_share_ci_low": low, "nn_share_ci_high": high}


def ct(
    fakes_to_train: np.ndarray,
    held_to_train: np.ndarray,
    fake_cells: np.ndarray,
    held_cells: np.ndarray,
) -> dict[str, float]:
    """C_T of Meehan et al. 2020 (arXiv:2004.05675): below 0, fakes are nearer to the training
    images than held-out images are; above 0, farther.

    From distances (N,), (H,) to the nearest training image and the cell of each. In every cell
    with 20 of both, z of the Mann-Whitney test; ct_z is their mean, weighted by held-out images.
    Its deviation without memory, ct_z_null_sd, is 1 for one cell and less for more.
    """
    zs, weights = [], []
    for cell in np.unique(held_cells):
        fakes, held = fakes_to_train[fake_cells == cell], held_to_train[held_cells == cell]
        if min(len(fakes), len(held)) >= LEAST_IN_CELL:
            zs.append(mann_whitney_z(fakes, held))
            weights.append(len(held))
    if not zs:
        zs, weights = [mann_whitney_z(fakes_to_train, held_to_train)], [1]
    shares = np.array(weights) / np.sum(weights)
    return {"ct_z": float(shares @ zs), "ct_z_null_sd": float(np.sqrt(np.sum(shares**2)))}


def mann_whitney_z(a: np.ndarray, b: np.ndarray) -> float:
    """z of the Mann-Whitney test with ties: below 0 where a (n,) tends to be less than b (m,)."""
    n, m = len(a), len(b)
    _, inverse, counts = np.unique(np.concatenate([a, b]), return_inverse=True, return_counts=True)
    mean_ranks = counts.cumsum() - (counts - 1) / 2
    u = mean_ranks[inverse[:n]].sum() - n * (n + 1) / 2
    ties = np.sum(counts.astype(np.float64) ** 3 - counts) / ((n + m) * (n + m - 1))
    variance = n * m / 12 * (n + m + 1 - ties)
    return float((u - n * m / 2) / np.sqrt(variance)) if variance > 0 else 0.0


def mia(members_to_fakes: np.ndarray, held_to_fakes: np.ndarray) -> dict[str, float]:
    """Membership inference without access to the model: an image whose nearest fake is near is
    called a training image (Chen et al. 2020, arXiv:1909.03935).

    From distances (M,), (H,) to the nearest fake of training and of held-out images. mia_tpr1 is
    the share of training images found at the threshold that calls 1% of held-out images so: 1%
    without memory. Keys mia_tpr1, mia_tpr1_ci_low, mia_tpr1_ci_high; the interval takes in that
    the threshold is uncertain, which for few held-out images is most of it.
    """
    share, low, high = share_below_quantile(held_to_fakes, members_to_fakes, FALSE_POSITIVES)
    return {"mia_tpr1": share, "mia_tpr1_ci_low": low, "mia_tpr1_ci_high": high}


def control(train: np.ndarray, held_out: np.ndarray, *, seed: int = 0) -> dict[str, bool]:
    """Does `nearcopy` see planted copies, and nothing where there is nothing to see?

    One half of the held-out images stands for fakes, the other for held-out images. held_out: what
    they exceed the null by is within chance. planted_copies: with 5% of them, the farthest from
    all training images, replaced by training images under noise of 2% of the deviation of all
    numbers, the rate rises by half of that or more. At most 10,000 training and 2,000 held-out
    images are used.
    """
    rng = np.random.default_rng(seed)
    train, held_out = (
        x[np.sort(rng.choice(len(x), min(n, len(x)), replace=False))]
        for x, n in ((train, 10_000), (held_out, 2_000))
    )
    fakes, null = np.array_split(rng.permutation(len(held_out)), 2)
    n_copies = max(round(PLANTED * len(fakes)), 1)
    originals = train[rng.choice(len(train), n_copies, replace=False)].astype(np.float64)
    copies = originals + PLANTED_NOISE * train.std() * rng.normal(size=originals.shape)
    if np.issubdtype(train.dtype, np.integer):
        copies = copies.round().clip(train.min(), train.max())
    axes = fit(train, seed=seed)
    train_points = place(train, axes)
    to_train, _ = search(place(held_out, axes), train_points)
    planted = np.sort(to_train[fakes])
    planted[-n_copies:], _ = search(place(copies.astype(train.dtype), axes), train_points)
    clean_rate = nearcopy(to_train[fakes], to_train[null])
    rise = nearcopy(planted, to_train[null])["nearcopy_rate"] - clean_rate["nearcopy_rate"]
    rate = max(0.01, NULL_RANK / (len(null) + 1))
    _, least, _ = share_below_quantile(to_train[null], to_train[fakes], rate, z=4)
    return {
        "held_out_is_no_copy": least <= rate,
        "planted_copies": bool(rise >= PLANTED / 2),
    }


def _cells(
    fakes: Points, train: Points, held_out: Points, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cell of each fake (N,) and held-out image (H,): k-means bins of the training images."""
    rows = np.random.default_rng(seed).permutation(len(train))[:CELLS_FITTED]
    n_cells = int(np.clip(len(held_out) // PER_CELL, 1, min(MOST_CELLS, len(rows))))
    centres = bins.fit(train.coordinates[rows], n_cells, seed=seed)
    return bins.assign(fakes.coordinates, centres), bins.assign(held_out.coordinates, centres)
