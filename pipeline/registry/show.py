"""Decisions of the registry for people to read."""

from __future__ import annotations

import sys

from pipeline.registry.promote import Outcome


def outcome(result: Outcome) -> None:
    """Print what became of a version, with every condition of the gate."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    if result.decision is not None:
        for condition in result.decision.conditions:
            mark = "[green]passed[/green]" if condition.passed else "[red]FAILED[/red]"
            console.print(f"{mark}  {condition.name:24} {escape(condition.text)}")
        console.print()
    console.print(escape(_sentence(result)))


def _sentence(result: Outcome) -> str:
    before = f"version {result.against}" if result.against else "none"
    failed = ", ".join(c.name for c in result.decision.failed) if result.decision else ""
    sentences = {
        "promoted": f"{result.uri} is the champion; before: {before}",
        "forced": f"{result.uri} is the champion by force ({failed} failed); before: {before}",
        "refused": f"{result.uri} is refused by {failed}; the champion stays {before}",
        "challenger": f"{result.uri} is marked as challenger; champion: {before}",
        "already": f"{result.uri} is the champion already",
        "restored": f"{result.uri} is the champion again, in place of {before}",
    }
    return sentences[result.verdict]
