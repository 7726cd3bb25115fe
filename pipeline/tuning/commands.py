"""`gan tune` and the verbs below it."""

from __future__ import annotations

import json

import click

from pipeline import paths

STORAGE = click.option(
    "--storage",
    metavar="URL",
    help="Where studies are kept: postgresql://..., another database, or a journal file; "
    "default: .tuning/journal.log.",
)
WORKERS = click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Processes on this machine; they share its cores, or take a GPU each in turn.",
)


@click.group(invoke_without_command=True)
@WORKERS
@STORAGE
@click.option("--json", "as_json", is_flag=True, help="The outcome as JSON.")
@click.pass_context
def tune(context: click.Context, workers: int, storage: str | None, as_json: bool) -> None:
    """Search for better settings: section `tune` of params.yaml says which, and how long.

    Every trial has the work of a full one, whatever its settings; the first has today's. Stop it
    with Ctrl-C: the same command goes on. Then `gan tune apply` and `dvc repro`.
    """
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    from pipeline.config import read_yaml
    from pipeline.tuning import finals, search, studies

    values = read_yaml(paths.PARAMS)
    search.known_trials(values)  # an impossible space is refused before anything runs
    search.prepare()
    outcome = search.search(values, workers=workers, url=studies.storage_url(storage))
    if as_json:
        told = None if outcome is None else {**asdict(outcome), "verdict": outcome.verdict}
        click.echo(json.dumps(told, indent=2))
        return
    if outcome is not None:
        finals.show(outcome)
    click.echo("trials     gan tune show")
    if outcome is None or outcome.winner is not outcome.today:
        click.echo("apply      gan tune apply && dvc repro")
    else:
        click.echo(
            "apply      nothing: today's settings stay (gan tune apply --trial N all the same)"
        )


@tune.command("show")
@click.argument("study", required=False)
@STORAGE
@click.option("--json", "as_json", is_flag=True, help="All of it, as JSON.")
def tune_show(study: str | None, storage: str | None, as_json: bool) -> None:
    """Print a study's trials, what mattered, and where the time went; default: the newest."""
    from pipeline.tuning import show, studies

    found = studies.load(studies.open_storage(studies.storage_url(storage)), study)
    if as_json:
        click.echo(json.dumps(show.everything(found), indent=2))
    else:
        show.show(found)


@tune.command("apply")
@click.argument("study", required=False)
@click.option("--trial", type=click.IntRange(min=0), help="Default: the winner.")
@STORAGE
@click.option("--json", "as_json", is_flag=True, help="The changed keys, as JSON.")
def tune_apply(study: str | None, trial: int | None, storage: str | None, as_json: bool) -> None:
    """Write a trial's settings into params.yaml, with train.steps for equal work."""
    from pipeline.tuning import studies
    from pipeline.tuning.apply import apply

    found = studies.load(studies.open_storage(studies.storage_url(storage)), study)
    number, changed = apply(found, trial)
    if as_json:
        click.echo(json.dumps({"study": found.study_name, "trial": number, "changed": changed}))
        return
    for line in changed:
        click.echo(line)
    click.echo(f"trial {number} of {found.study_name} is in {paths.PARAMS}; run dvc repro")


@tune.command("join")
@click.argument("study", required=False)
@click.option("--storage", metavar="URL", required=True, help="Where the study is kept.")
@WORKERS
def tune_join(study: str | None, storage: str, workers: int) -> None:
    """Work on a study that another machine began, from a checkout of the same commit."""
    from pipeline.tuning import search

    search.join(storage, study, workers=workers)
