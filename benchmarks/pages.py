"""What benchmarks write into the docs: tables, where and when they were made, and their place."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline import files
from pipeline.errors import UserError
from pipeline.training import devices

SHARED = 0.5  # load average from which the machine is not idle


def markdown(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines of a table."""
    return [line(cells) for cells in (head, ("---",) * len(head), *rows)]


def line(cells: Sequence[str]) -> str:
    """One line of a table."""
    return "| " + " | ".join(cells) + " |"


def machine(device: torch.device) -> str:
    """The processor or GPU in words."""
    name = devices.describe(device)
    if device.type == "cpu" and Path("/proc/cpuinfo").exists():
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        threads = torch.get_num_threads()
        name = f"{found[1] if found else 'cpu'}, {threads} thread{'s' if threads > 1 else ''}"
    return f"{name}; torch {torch.__version__}"


def beside() -> str:
    """Whether other work runs here: ask before measuring, which is work itself."""
    shared = os.getloadavg()[0] > SHARED
    return "shared with other work, so that times are rough" if shared else "else idle"


def place(path: Path, mark: str) -> tuple[str, str, str]:
    """What stands before, between and after `<!-- mark -->` and `<!-- end mark -->`.

    Raises UserError where the page has no such place: ask before an hour of measuring.
    """
    marks = rf"(.*<!-- {mark} -->\n)(.*?)(<!-- end {mark} -->.*)"
    found = re.fullmatch(marks, path.read_text(encoding="utf-8"), re.S)
    if found is None:
        raise UserError(f"{path} has no place for it: <!-- {mark} --> and <!-- end {mark} -->")
    return found[1], found[2], found[3]


def write(path: Path, mark: str, lines: Sequence[str]) -> None:
    """Put the lines between the marks."""
    before, _, after = place(path, mark)
    text = "\n".join(lines).rstrip()
    files.write_bytes(path, f"{before}{text}\n{after}".encode())
