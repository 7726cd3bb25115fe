"""The `gan` command: thin, one function a verb."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from pipeline import errors, logs, paths
from pipeline.registry import commands as registry
from pipeline.tuning import commands as tuning


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gan-pipeline")
def gan() -> None:
    """Track, check and use what `dvc repro` makes. Run it in the project's folder."""


@gan.command()
@click.option("--quick", is_flag=True, help="Say only what is wrong; skip what takes seconds.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list, for scripts.")
def doctor(quick: bool, as_json: bool) -> None:
    """Check params.yaml, data, git, disk, device and the MLflow store."""
    from pipeline.doctor import examine

    findings = examine(quick=quick)
    if as_json:
        rows = [{"check": f.name, "state": f.state, "text": f.text} for f in findings]
        click.echo(json.dumps(rows, indent=2))
    else:
        for finding in findings:
            if not quick or finding.state != "ok":
                click.echo(f"{finding.state:8} {finding.name:10} {finding.text}", err=quick)
    sys.exit(max(finding.exit_code for finding in findings))


@gan.command()
def schema() -> None:
    """Print the JSON schema of params.yaml, for editors."""
    from pipeline.config import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@gan.command()
@click.option("--json", "as_json", is_flag=True, help="What was done, as JSON.")
def sync(as_json: bool) -> None:
    """Bring the MLflow store up to date with the outs here and the runs that wait.

    Adds what the store lacks and deletes nothing; running it again does nothing.
    """
    from pipeline.tracking import store
    from pipeline.tracking.deliver import sync as deliver_all

    if not paths.PARAMS.is_file():
        raise errors.ConfigError(f"{paths.PARAMS} is missing: run this in the project's folder")
    summary = deliver_all()
    if as_json:
        click.echo(json.dumps({**vars(summary), "store": store.shown_uri()}, indent=2))
    else:
        for name in summary.delivered:
            click.echo(f"delivered  {name}")
        for name, reason in summary.left.items():
            click.echo(f"waiting    {name}: {reason}", err=True)
        if paths.REPORT.exists():
            click.echo(f"report     {paths.REPORT.resolve().as_uri()}")
        click.echo("MLflow     .venv/bin/gan ui")
    sys.exit(1 if summary.left else 0)


@gan.command()
@click.argument("first", metavar="A")
@click.argument("others", metavar="B...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Figures, intervals and verdicts as JSON.")
def compare(first: str, others: tuple[str, ...], as_json: bool) -> None:
    """Put the figures of evaluations side by side, and say what their differences mean.

    A is what the others are compared with. Each is a run (by name, id or the first digits of its
    train_key or eval_key), a DVC experiment, a model version (models:/name/version or
    models:/name@alias), a metrics file, a folder that holds an evaluation (. is the workspace), or
    a git revision. What names a training stands for its newest evaluation.

    Evaluations of different protocols are refused.
    """
    from dataclasses import asdict

    from pipeline import compare as comparing
    from pipeline.config import load_tracking
    from pipeline.tracking.evaluations import resolve

    names = [first, *others]
    evaluated = resolve(names, load_tracking().experiment)
    letters = [comparing.letter(i) for i in range(len(names))]
    comparisons = [
        comparing.compare(evaluated[0], one, letters=(letters[0], letter))
        for letter, one in zip(letters[1:], evaluated[1:], strict=True)
    ]
    if as_json:
        runs = {letter: one.name for letter, one in zip(letters, evaluated, strict=True)}
        both = {"runs": runs, "comparisons": [asdict(x) for x in comparisons]}
        click.echo(json.dumps(both, indent=2))
    else:
        comparing.show(list(zip(letters, names, evaluated, strict=True)), comparisons)


@gan.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
def ui(host: str, port: int) -> None:
    """Serve the runs in MLflow's UI, after a sync, and say where to look."""
    from pipeline import ports
    from pipeline.config import load_tracking
    from pipeline.tracking import store, views
    from pipeline.tracking.deliver import reach
    from pipeline.tracking.deliver import sync as deliver_all

    experiment, remote = load_tracking().experiment, store.uri().startswith("http")
    if not remote:
        ports.listen(host, port).close()  # a taken one is told before any address is
    deliver_all()
    _, experiment_id = reach(experiment)
    server = store.shown_uri().rstrip("/") if remote else f"http://{host}:{port}"
    click.echo(f"figures            {server}/{views.address(experiment_id)}")
    click.echo(f"curves, samples    {server}/{views.address(experiment_id, charts=True)}")
    if remote:
        return
    mlflow = Path(sys.executable).with_name("mlflow")
    command = [str(mlflow), "ui", "--backend-store-uri", store.uri()]
    os.execv(mlflow, [*command, "--host", host, "--port", str(port)])


@gan.group()
def preset() -> None:
    """Recipes that are known to work, to be merged into params.yaml."""


@preset.command("list")
@click.option("--json", "as_json", is_flag=True, help="Name and description, as JSON.")
def preset_list(as_json: bool) -> None:
    """Name every preset and say what it is."""
    from pipeline import presets

    found = presets.names()
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        for name, description in found.items():
            click.echo(f"{name:24} {description}")


@preset.command("show")
@click.argument("name")
def preset_show(name: str) -> None:
    """Print a preset: what it sets beside, or other than, the plain recipe (dcgan)."""
    from pipeline import presets

    click.echo(presets.text(name), nl=False)


@preset.command("use")
@click.argument("name")
@click.option("--all", "everything", is_flag=True, help="With default: every key, data too.")
@click.option("--json", "as_json", is_flag=True, help="The changed keys, as JSON.")
def preset_use(name: str, everything: bool, as_json: bool) -> None:
    """Write a preset's keys into params.yaml; all else stays, comments too.

    What it leaves out of a recipe (model, loss, train) becomes that of dcgan, the plain one.
    `gan preset use default` brings the shipped recipe back; with --all the shipped value of every
    key, and then nothing of your own settings stays.
    """
    from pipeline import presets

    if everything and name != presets.DEFAULT:
        raise click.UsageError(f"--all goes with {presets.DEFAULT}, which alone states every key")
    changed = presets.use(name, everything=everything)
    if as_json:
        click.echo(json.dumps(changed, indent=2))
        return
    for line in changed:
        click.echo(line)
    if changed:
        keys = "1 key" if len(changed) == 1 else f"{len(changed)} keys"
        click.echo(f"{keys} changed in {paths.PARAMS}; run dvc repro")
    else:
        click.echo(f"{paths.PARAMS} has all of {name} already")


@gan.command()
@click.argument("name", type=click.Choice(["ring", "grid", "stacked_mnist"]))
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1, 100))
@click.option(
    "--full", is_flag=True, help="The published networks at their full length (a GPU's work)."
)
@click.option("-S", "changes", multiple=True, metavar="KEY=VALUE", help="Change a param.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the files go.")
def benchmark(
    name: str, seeds: int, full: bool, changes: tuple[str, ...], as_json: bool, out: Path | None
) -> None:
    """Run a published mode benchmark and print its table beside the published rows.

    It works in .cache/benchmarks and touches neither params.yaml nor any out. Seeds that are done
    are kept: the same command goes on where it was stopped.
    """
    from pipeline import files, outputs
    from pipeline.benchmark import published, runs, tables

    if out is not None:
        outputs.check_folder(out)
    protocol = published.PROTOCOLS[name]
    chosen = protocol.full if full else protocol.preset
    values = runs.settings(chosen, changes)
    folder = paths.benchmarks() / chosen
    results = runs.run(values, range(seeds), folder)
    label = ", ".join([f"preset {chosen}", *changes])
    told = tables.summary(name, label, protocol, values, results)
    out = out or folder
    outputs.make_folder(out)
    files.write_json(out / f"{name}.json", told)
    files.write_bytes(out / f"{name}.md", tables.markdown(told).encode())
    tables.picture(results, folder / "results", out / f"{name}.png")
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(f"{name}: {label}, {told['samples']:,} samples a seed")
    _show_table(tables.rows(told))
    click.echo(f"{out / name}.md, .json, .png")


def _show_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        first, *others = row
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        click.echo("  ".join([first.ljust(widths[0]), *cells]))


for command in (*registry.COMMANDS, tuning.tune):
    gan.add_command(command)


def main() -> None:
    logs.setup()
    errors.run(_run)


def _run() -> None:
    """click's own way of ending, but for Ctrl-C, which ends as anywhere else here."""
    try:
        code = gan.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort as error:
        if isinstance(error.__cause__, EOFError):  # click takes a file that ends too soon for ^D
            raise error.__cause__ from None
        raise KeyboardInterrupt from None
    sys.exit(code)


if __name__ == "__main__":
    main()
