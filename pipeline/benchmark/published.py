"""What others published for the mode benchmarks, and what a perfect sampler would get.

VEEGAN: Srivastava et al. 2017, arXiv:1705.07761. PacGAN: Lin et al. 2018, arXiv:1712.04086. The
same "GAN" differs widely between papers, as networks and training do: the rows give a scale.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.datasets.points import MIXTURES
from pipeline.metrics import mixture


@dataclass(frozen=True)
class Row:
    """Mean figures of one method; None: not published. `hq` is a share, of points only."""

    method: str
    modes: float
    hq: float | None
    reverse_kl: float | None


@dataclass(frozen=True)
class Protocol:
    """A benchmark: its presets, how many samples are counted, and the published rows.

    `preset` is the recipe made for a CPU, `full` the published networks at their full length.
    """

    preset: str
    full: str
    samples: int
    n_modes: int
    rows: tuple[Row, ...]

    @property
    def ideal(self) -> Row:
        """A perfect sampler, on average."""
        points = self.preset in MIXTURES
        hq = mixture.IDEAL_HQ if points else None
        counted = round(self.samples * (hq or 1))
        floor = mixture.reverse_kl_floor(self.n_modes, counted)
        return Row("perfect sampler", self.n_modes, hq, floor)


PROTOCOLS = {
    "ring": Protocol("ring", "ring_pacgan", 2500, 8, (
        Row("GAN (VEEGAN's paper)", 1, 0.993, None),
        Row("Unrolled GAN (VEEGAN's paper)", 7.6, 0.356, None),
        Row("VEEGAN", 8, 0.529, None),
        Row("GAN (PacGAN's paper)", 6.3, 0.982, 0.45),
        Row("PacGAN2", 7.9, 0.956, 0.07),
        Row("PacGAN4", 7.8, 0.959, 0.07),
    )),
    "grid": Protocol("grid", "grid_pacgan", 2500, 25, (
        Row("GAN (VEEGAN's paper)", 3.3, 0.005, None),
        Row("Unrolled GAN (VEEGAN's paper)", 23.6, 0.16, None),
        Row("VEEGAN", 24.6, 0.40, None),
        Row("GAN (PacGAN's paper)", 17.3, 0.948, 0.70),
        Row("PacGAN2", 23.8, 0.913, 0.13),
        Row("PacGAN4", 24.8, 0.936, 0.04),
    )),
    "stacked_mnist": Protocol("stacked_mnist", "stacked_mnist_full", 26000, 1000, (
        Row("DCGAN (VEEGAN's paper)", 99, None, 3.40),
        Row("DCGAN (PacGAN's paper)", 78.9, None, 4.50),
        Row("VEEGAN", 150, None, 2.95),
        Row("PacDCGAN2", 1000, None, 0.06),
    )),
}  # fmt: skip
