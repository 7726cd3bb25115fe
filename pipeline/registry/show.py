"""Decisions of the registry for people to read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pipeline.registry.credentials import Credentials
from pipeline.registry.lineage import Origin
from pipeline.registry.promote import Outcome
from pipeline.registry.trace import Traced
from pipeline.registry.verify import Link


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


def links(origin: Origin, found: list[Link]) -> None:
    """Print what a version came from, and whether every link to it holds."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    named = f" ({', '.join(origin.aliases)})" if origin.aliases else ""
    console.print(f"[bold]{escape(origin.uri)}[/bold]{named}")
    for key, value in origin.texts.items():
        console.print(f"  {key:15} {escape(value)}")
    colours = {"ok": "green", "broken": "red", "not here": "yellow"}
    for link in found:
        state = f"[{colours[link.state]}]{link.state:8}[/]"
        console.print(f"{state}  {link.name:9} {escape(link.text)}")


def links_dict(origin: Origin, found: list[Link]) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "uri": origin.uri,
        "aliases": origin.aliases,
        "origin": origin.texts,
        "links": [vars(link) for link in found],
    }


def traced(image: Path, result: Traced) -> str:
    """What is known of an image."""
    origin = result.origin
    place = "a grid" if origin.index is None else f"number {origin.index}"
    lines = [
        f"{image}: {place} of {origin.n} of seed {origin.seed}",
        f"  model      {origin.model or 'not registered when it was made'}",
        f"  weights    {origin.weights}",
        f"  run        {origin.run or 'not named'}",
    ]
    if origin.label:
        lines.append(f"  label      {origin.label}")
    if origin.truncation != 1:
        lines.append(f"  truncation {origin.truncation:g}")
    if origin.selection:
        lines.append("  selection  by the discriminator")
    lines.append(f"  known by   its {result.found_by}")
    lines.append(
        f"  {'proved' if result.proved else 'NOT PROVED'}     {result.text} ({result.model})"
    )
    if result.credentials:
        lines.append(f"  signature  {signature(result.credentials)}")
    return "\n".join(lines)


def signature(found: Credentials) -> str:
    """What content credentials say."""
    if found.valid:
        return f"by {found.signer}; nothing was changed since"
    return f"BROKEN: {'; '.join(found.problems)}"


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
