"""Of a stage, which takes none: its settings are in params.yaml."""

from __future__ import annotations

import argparse


def none(module: str, doc: str | None) -> None:
    """Answer `--help` by what the stage does, and end with code 2 at any other argument."""
    argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=doc,
        epilog="Its settings are in params.yaml.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
