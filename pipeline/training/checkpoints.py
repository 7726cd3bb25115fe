"""Checkpoints outside the stage's outs, by the key of what is trained; a kill loses little.

`<root>/<key>/` holds state.pt, inputs.json (what the key was made of), started.json and whatever
the training keeps there meanwhile. A changed key finds no checkpoint and starts anew.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from pipeline import files, lineage, parallel
from pipeline.errors import UserError
from pipeline.training import devices
from pipeline.training.guard import cloned
from pipeline.training.state import State

log = logging.getLogger(__name__)

STATE = "state.pt"
KEY = "key"  # in state.pt: of the training that wrote it
INPUTS = "inputs.json"
STARTED = "started.json"
ABANDONED_DAYS = 30


class Damaged(UserError):
    """A checkpoint is not what was written, or not where it was written."""

    everywhere = True


@contextlib.contextmanager
def hold(root: Path, key: str) -> Iterator[Path]:
    """The folder of `key`, while no other command has it: two equal trainings go one by one.

    Of several processes the first calls this, and the others `wait`.
    """
    folder = root / key
    folder.mkdir(parents=True, exist_ok=True)
    said = "the same training runs in another process: waiting for it to end"
    with parallel.locked(root / f"{key}.lock", lambda: log.info(said)):
        folder.mkdir(exist_ok=True)
        files.remove_half_written(folder)
        yield folder


def wait() -> None:
    """Until the first process holds the folder."""
    parallel.until(lambda: False)


def prune(root: Path, keep: str, *, days: int = ABANDONED_DAYS) -> None:
    """Remove what nobody has touched for `days`, holds or calls `keep`: folders and lock files."""
    from filelock import FileLock, Timeout

    names = {path.name.removesuffix(".lock") for path in root.glob("*")} - {keep}
    removed, size = [], 0
    for name in sorted(names):
        folder, lock = root / name, root / f"{name}.lock"
        stats = list(_stats([folder, *folder.rglob("*"), lock]))
        if any(time.time() - stat.st_mtime < days * 86400 for stat in stats):
            continue
        try:
            with FileLock(lock).acquire(timeout=0):
                if folder.exists():
                    removed.append(name[:8])
                    size += sum(stat.st_size for stat in stats)
                shutil.rmtree(folder, ignore_errors=True)
                # Under the lock: who waits for it sees that the file is gone, and makes another.
                lock.unlink(missing_ok=True)
        except Timeout:
            continue
    if removed:
        log.info(
            "removed checkpoints that no training has continued for %d days: %s (%.0f MB)",
            days,
            ", ".join(removed),
            size / 2**20,
        )


def _stats(paths: list[Path]) -> Iterator[os.stat_result]:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # its training may end at any moment
            yield path.stat()


def first_start(folder: Path, now: int, *, resumed: bool) -> int:
    """When the training began: `now` (Unix milliseconds) unless it continues an earlier one."""
    path = folder / STARTED
    if resumed:
        with contextlib.suppress(FileNotFoundError, ValueError):  # a damaged one is none
            return int(files.read_json(path))
    files.write_json(path, now)
    return now


def save(state: State, folder: Path) -> None:
    """Write the state atomically: a kill leaves the last whole checkpoint."""
    _write(_noted(state), folder)


@contextlib.contextmanager
def background(folder: Path) -> Iterator[Callable[[State], None]]:
    """Yield a `save(state)` that waits for a copy of the state only; a thread writes it.

    Where a write fails, the next save or the end of the block raises its error.
    """
    pending: list[Future[None]] = []

    def settle() -> None:
        while pending:
            pending.pop().result()

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint") as writer:

        def save(state: State) -> None:
            settle()
            pending.append(writer.submit(_write, cloned(_noted(state)), folder))

        try:
            yield save
        finally:  # also where the training is asked to end: what it saved last must be there
            settle()


def environment(state: State) -> dict[str, str]:
    """What the last bits of a sum depend on beside code and params, for this process's device."""
    instructions = torch.backends.cpu.get_cpu_capability()  # a virtual machine's name tells little
    return {
        "torch": str(torch.__version__),
        "device": devices.describe(next(state.generator.parameters()).device),
        "processor": f"{lineage.processor()}, {instructions}",
    }


def _noted(state: State) -> dict[str, Any]:
    """The state with the present environment among those that it was trained in."""
    here = environment(state)
    if here not in state.environments:
        state.environments.append(here)
    return state.state_dict()


def _warn_of_others(state: State) -> None:
    """Say so where a part of the training had another environment than this one."""
    here = environment(state)
    others = [other for other in state.environments if other != here]
    if others:
        before, now = ({"files": {}, "params": facts} for facts in (others[-1], here))
        log.warning(
            "the checkpoint was made in another environment (%s): the training goes on, and its "
            "end will be that of an uninterrupted one to rounding, not to the bit",
            "; ".join(lineage.difference(before, now)),
        )


def _write(state: dict[str, Any], folder: Path) -> None:
    content = io.BytesIO()
    torch.save({**state, KEY: folder.name}, content)
    files.write_bytes(folder / STATE, content.getvalue())


def restore(state: State, folder: Path | None) -> bool:
    """Load the last checkpoint into `state`; False where there is none.

    Of several processes the first reads it and the others, `folder` None, get it from there: other
    machines need no access to the file. Warns where sums round otherwise than before. Raises
    Damaged where it is not what was written there.
    """
    known = parallel.broadcast_object(folder is not None and (folder / STATE).exists())
    if not known:
        return False
    content = parallel.broadcast_bytes((folder / STATE).read_bytes() if folder is not None else b"")
    where = folder / STATE if folder is not None else "the checkpoint"
    try:
        saved = _loaded(content)
    except Exception as error:  # torch and pickle raise what they happen to meet
        log.debug("torch.load failed", exc_info=True)
        raise Damaged(
            f"{where} is damaged: remove it to start the training anew, or put back a copy of it"
        ) from error
    key = parallel.broadcast_object(folder.name if folder is not None else None)
    if saved.pop(KEY, None) != key:
        raise Damaged(
            f"{where} is another training's: remove it to start this one anew, or put back its own"
        )
    state.load_state_dict(saved)
    if folder is not None:
        _warn_of_others(state)
    return True


def _loaded(content: bytes) -> dict[str, Any]:
    """What `torch.save` wrote, on the CPU. Raises any error where that is not what it is."""
    # torch itself does not look at the checksums: it would go on from weights that nobody wrote.
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} is another")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def resume(state: State, folder: Path, inputs: lineage.Inputs) -> bool:
    """`restore` the checkpoint of these inputs, or say why there is none; whether there is one."""
    if restore(state, folder):
        log.info("continuing from the checkpoint at step %d", state.step)
        return True
    found = nearest(folder.parent, inputs)
    if found is not None:
        other, lines = found
        log.info(
            "starting anew: the nearest checkpoint (%s) is of other inputs: %s",
            other[:8],
            "; ".join(lines[:5]) + ("; ..." if len(lines) > 5 else ""),
        )
    remember_inputs(folder, inputs)
    return False


def remember_inputs(folder: Path, inputs: lineage.Inputs) -> None:
    files.write_json(folder / INPUTS, inputs)


def nearest(root: Path, inputs: lineage.Inputs) -> tuple[str, list[str]] | None:
    """The most similar checkpoint of other inputs: its key and how they differ. None: no other."""
    found = []
    for folder in sorted(root.glob("*")):
        if (folder / STATE).exists():
            # Its training may end at any moment, and of a damaged file there is nothing to tell.
            with contextlib.suppress(FileNotFoundError, ValueError):
                before = files.read_json(folder / INPUTS)
                found.append((folder.name, lineage.difference(before, inputs)))
    others = [(key, lines) for key, lines in found if lines]
    return min(others, key=lambda item: len(item[1]), default=None)


def discard(folder: Path) -> None:
    """Remove the folder of a training that has ended well."""
    shutil.rmtree(folder, ignore_errors=True)
