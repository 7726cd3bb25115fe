"""The verbs of `gan` that have to do with models and what they make, one function each."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import paths

if TYPE_CHECKING:
    import numpy as np


@click.command()
@click.option("--run", metavar="R", help="A run, key or experiment; default: the workspace's.")
@click.option("--version", metavar="V", help="A version that is registered already.")
@click.option("--challenger", is_flag=True, help="Only register it and mark it as challenger.")
@click.option("--force", is_flag=True, help="Promote it whatever the gate says; needs --why.")
@click.option("--why", help="Why it is forced; kept on the version.")
@click.option("--json", "as_json", is_flag=True, help="The decision as JSON.")
def promote(
    run: str | None,
    version: str | None,
    challenger: bool,
    force: bool,
    why: str | None,
    as_json: bool,
) -> None:
    """Register an evaluated model and, if it passes the gate, make it the champion.

    `registry.gate` of params.yaml holds the margins. Exit code 1: refused, with every condition
    that failed.
    """
    if run and version:
        raise click.UsageError("give --run or --version, not both")
    if force != bool(why and why.strip()):
        raise click.UsageError("--force and --why 'REASON' go together")
    from pipeline.config import load_params
    from pipeline.registry import promote as promoting
    from pipeline.registry import show

    outcome = promoting.promote(
        load_params(), run=run, version=version, only_mark=challenger, why=why
    )
    if as_json:
        click.echo(json.dumps(outcome.to_dict(), indent=2))
    else:
        show.outcome(outcome)
    sys.exit(1 if outcome.verdict == "refused" else 0)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Both versions, as JSON.")
def rollback(as_json: bool) -> None:
    """Make the champion before this one the champion again."""
    from pipeline.config import load_params
    from pipeline.registry import promote as promoting
    from pipeline.registry import show

    outcome = promoting.rollback(load_params())
    if as_json:
        click.echo(json.dumps(outcome.to_dict(), indent=2))
    else:
        show.outcome(outcome)


@click.command()
@click.argument("name", metavar="MODEL")
@click.option("--json", "as_json", is_flag=True, help="Every link, as JSON.")
def verify(name: str, as_json: bool) -> None:
    """Follow every link from a model version to what it came from, and check that it holds.

    MODEL is models:/NAME/VERSION or models:/NAME@ALIAS; or what versions came from, and then all of
    these are checked: a run, a key, a commit, a data set's digest, an experiment, STUDY/TRIAL. Exit
    code 1 where a link is broken.
    """
    from pipeline.config import load_params
    from pipeline.errors import UserError
    from pipeline.registry import lineage, promote, show
    from pipeline.registry import verify as verifying

    client = promote.ready(load_params())
    uris = [name] if name.startswith("models:/") else lineage.versions_of(client, name)
    if not uris:
        raise UserError(f"no registered version came from {name}")
    results = [verifying.verify(client, uri) for uri in uris]
    if as_json:
        click.echo(json.dumps([show.links_dict(*result) for result in results], indent=2))
    else:
        for result in results:
            show.links(*result)
    broken = any(link.state == "broken" for _, links in results for link in links)
    sys.exit(1 if broken else 0)


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("--keep", is_flag=True, help="Leave the worktree there.")
@click.option("--json", "as_json", is_flag=True, help="The verdict as JSON.")
def reproduce(model: str, keep: bool, as_json: bool) -> None:
    """Train a registered model again, from its commit, changes and params, and compare.

    In a worktree whose caches are empty. On the same hardware and versions the weights must be the
    same; on others every figure must lie within its interval. Exit code 1 where they are not.
    """
    from pipeline.config import load_params
    from pipeline.registry import promote
    from pipeline.registry import reproduce as reproducing

    result = reproducing.reproduce(promote.ready(load_params()), model, keep=keep)
    if as_json:
        click.echo(json.dumps(vars(result), indent=2))
    else:
        click.echo(f"{result.uri}: {result.verdict}: {result.text}")
    sys.exit(1 if result.verdict == "differs" else 0)


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="All that is known, as JSON.")
def trace(image: Path, as_json: bool) -> None:
    """Say which model, seed and index made an image, and prove it by making it again.

    By its metadata or, where that was stripped, by the manifests in the store. Exit code 1 where
    the image is not what it says, its C2PA signature does not hold, or nothing is known of it. Of
    an archive (NAME.zip) the signature alone is checked.
    """
    from dataclasses import asdict

    from pipeline.config import load_params
    from pipeline.errors import UserError
    from pipeline.registry import credentials, promote, show
    from pipeline.registry import trace as tracing

    if image.suffix == ".zip":
        found = credentials.read(image)
        if found is None:
            raise UserError(f"{image} is not signed; each image in it says where it came from")
        click.echo(json.dumps(asdict(found)) if as_json else f"{image}: {show.signature(found)}")
        sys.exit(0 if found.valid else 1)
    traced = tracing.trace(promote.ready(load_params()), image)
    click.echo(tracing.to_json(traced) if as_json else show.traced(image, traced))
    signed_well = traced.credentials is None or traced.credentials.valid
    sys.exit(0 if traced.proved and signed_well else 1)


@click.command()
@click.argument("model", required=False)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=5001, show_default=True, type=click.IntRange(0, 65535))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64))
def serve(model: str | None, host: str, port: int, workers: int) -> None:
    """Serve MODEL (default: the champion) by MLflow's scoring server, and print a request.

    `kill -HUP` takes up a new champion: requests in flight are answered first.
    """
    from pipeline.config import load_params
    from pipeline.registry import promote
    from pipeline.registry import serve as serving

    params = load_params()
    uri = model or f"models:/{params.model_name}@champion"
    client = promote.ready(params)
    sys.exit(serving.serve(client, uri, host=host, port=port, workers=workers))


@click.command()
@click.option(
    "--model",
    default=str(paths.GENERATOR),
    show_default=True,
    help="A training's folder, or a registered model: models:/NAME@champion.",
)
@click.option("--onnx", "formats", flag_value="onnx", multiple=True, help="For onnxruntime.")
@click.option("--torchscript", "formats", flag_value="torchscript", multiple=True)
@click.option("--torch-export", "formats", flag_value="torch-export", multiple=True)
@click.option("--out", default=Path("exported"), type=click.Path(path_type=Path), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Files and differences as JSON.")
def export(model: str, formats: tuple[str, ...], out: Path, as_json: bool) -> None:
    """Write the generator for other runtimes, each file checked against torch's own output.

    It takes latent vectors and, of a conditional model, labels; PATH.json says all of it.
    """
    if not formats:
        raise click.UsageError("give --onnx, --torchscript or --torch-export")
    from pipeline import outputs
    from pipeline.config import load_tracking
    from pipeline.registry import export as exporting
    from pipeline.registry import lineage
    from pipeline.tracking.deliver import reach

    outputs.check_folder(out)
    source = Path(model)
    if model.startswith("models:/"):
        client, _ = reach(load_tracking().experiment)
        _, source = lineage.fetch_version(client, model)
    results = [
        exporting.export(source, out / f"generator{exporting.SUFFIXES[name]}", name)
        for name in dict.fromkeys(formats)
    ]
    if as_json:
        click.echo(json.dumps([{**vars(x), "path": str(x.path)} for x in results], indent=2))
        return
    for result in results:
        click.echo(f"{result.path}  differs from torch by at most {result.difference:.1e}")


@click.command()
@click.option("-n", default=100, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--label", help="A class by name or number; default: all in turn.")
@click.option("--which", default="best", show_default=True, type=click.Choice(["best", "last"]))
@click.option(
    "--model",
    default=str(paths.GENERATOR),
    show_default=True,
    help="A training's folder, or a registered model: models:/NAME@champion.",
)
@click.option("--grid", "as_grid", is_flag=True, help="One picture of all, ten in a row.")
@click.option(
    "--truncation",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Below 1: likelier samples, less variety.",
)
@click.option(
    "--reject", is_flag=True, help="Keep the samples that the discriminator takes for real."
)
@click.option(
    "--c2pa",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    nargs=2,
    metavar="CERTIFICATES KEY",
    help="Sign the grid or the archive; needs the extra c2pa.",
)
@click.option(
    "--out",
    default=Path("samples"),
    type=click.Path(path_type=Path),
    show_default=True,
    help="A folder; NAME.zip: an archive of all; with --grid also NAME.png; points: NAME.csv.",
)
def sample(
    n: int,
    seed: int,
    label: str | None,
    which: str,
    model: str,
    as_grid: bool,
    truncation: float,
    reject: bool,
    c2pa: tuple[Path, Path] | None,
    out: Path,
) -> None:
    """Write images from the trained generator as PNG files; points as a CSV file or a plot.

    Each PNG says in its metadata what made it, which `gan trace` proves; a manifest with the hashes
    of all lies beside them and in the run. --reject needs the discriminator that the training kept
    beside the generator, and the prepared data, by whose val split it is calibrated.
    """
    from pipeline import outputs
    from pipeline.registry import credentials, samples

    archive = out.suffix == samples.ARCHIVE
    alone = samples.is_file(out, as_grid=as_grid)
    if archive and as_grid:
        raise click.UsageError("give --grid or an archive, not both")
    if c2pa and not (archive or as_grid):
        raise click.UsageError("--c2pa signs a --grid or an archive (--out NAME.zip)")
    samples.check_out(out, as_grid=as_grid)
    signing = credentials.Signing(*c2pa) if c2pa else None
    if signing is not None:
        credentials.check(signing)
    if model.startswith("models:/"):
        if reject:
            raise click.UsageError("--reject needs the discriminator, which no package holds")
        batch = samples.of_model(model, n=n, seed=seed, label=label, truncation=truncation)
    else:
        batch, share = samples.of_folder(
            Path(model),
            which=which,
            n=n,
            seed=seed,
            label=label,
            truncation=truncation,
            reject=reject,
        )
        if share is not None:
            click.echo(f"{share:.1%} of the samples drawn were accepted", err=True)
    points = batch.samples.ndim == 2
    if points and (archive or signing is not None):
        raise click.UsageError("points are neither signed nor put into an archive")
    if not points and out.suffix == samples.TABLE:
        raise click.UsageError("images are no table: give --out a folder or NAME.zip")
    outputs.make_folder(out.parent if alone else out)
    if points:
        path = out if alone else out / f"seed{seed}.{'png' if as_grid else 'csv'}"
        _write_points(path, batch.samples)
    else:
        path = samples.write(batch, out, as_grid=as_grid, signing=signing)
    click.echo(f"{n} {'points' if points else 'images'} in {path}")


def _write_points(path: Path, points: np.ndarray) -> None:
    """A scatter plot, or a line for each point."""
    from pipeline import files, grids, scatter

    if path.suffix == ".png":
        grids.save_png(path, scatter.scatter(points, points))
        return
    lines = ["x,y", *(f"{x:.6g},{y:.6g}" for x, y in points)]
    files.write_bytes(path, ("\n".join(lines) + "\n").encode())


COMMANDS = (promote, rollback, verify, reproduce, trace, serve, export, sample)
