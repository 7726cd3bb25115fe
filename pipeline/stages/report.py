"""Stage `report`: one self-contained page on what the training and its evaluation came to."""

from __future__ import annotations

import logging

from pipeline import arguments, errors, files, logs, paths
from pipeline.config import load_params
from pipeline.networks.build import load_generator
from pipeline.report import outs, page
from pipeline.report.samples import Sampler
from pipeline.tracking.deliver import deliver_or_keep

log = logging.getLogger(__name__)


def main() -> None:
    config = load_params().report
    found = outs.load()
    generator, _ = load_generator(paths.GENERATOR, which=found.checkpoint)
    sampler = Sampler(generator, n=len(found.features), seed=found.seed, labels=found.labels)
    html = page.build(
        found,
        sampler,
        samples_per_class=config.samples_per_class,
        neighbours=config.neighbours,
        interpolations=config.interpolations,
    )
    with files.atomic_file(paths.REPORT) as fresh:
        fresh.write_text(html, encoding="utf-8")
    log.info("the report is %s", paths.REPORT)
    deliver_or_keep("report")


if __name__ == "__main__":
    logs.setup()
    arguments.none("pipeline.stages.report", __doc__)
    errors.run(main)
