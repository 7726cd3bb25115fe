"""Presets: overlays of params.yaml that are known to work, one file each in presets/.

An overlay states some sections and keys, never all; its first comment says what it is. What it
leaves out of a recipe (model, loss, train) is that of `dcgan`, the plainest one, so that the result
does not depend on which one was used before; a preset that states data states all that another such
one does.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline import config, files, lineage, paths
from pipeline.errors import ConfigError

DEFAULT, PLAIN = "default", "dcgan"
RECIPE = ("model", "loss", "train")  # sections that a preset sets as a whole


def names(folder: Path = paths.PRESETS) -> dict[str, str]:
    """Every preset with its description, the first comment of its file.

    Raises ConfigError where there are none.
    """
    found = sorted(folder.glob("*.yaml"))
    if not found:
        raise ConfigError(f"{folder} has no presets: run this in the project's folder")
    return {path.stem: _description(path) for path in found}


def text(name: str, folder: Path = paths.PRESETS) -> str:
    """The preset's file. Raises ConfigError, with the nearest name, where there is none."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = list(names(folder))
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]}?" if close else "."
        raise ConfigError(f"unknown preset {name!r}{hint} There are {', '.join(known)}")
    return path.read_text(encoding="utf-8")


def overlay(name: str, folder: Path = paths.PRESETS) -> dict[str, Any]:
    """What the preset sets, as nested plain dictionaries. Raises ConfigError as `text` does."""
    text(name, folder)
    return _whole(name, folder, config.read_yaml)


def _whole(name: str, folder: Path, read: Callable[[Path], Any]) -> dict[str, Any]:
    """The preset over the plain recipe."""
    own, plain = read(folder / f"{name}.yaml"), folder / f"{PLAIN}.yaml"
    if name in (DEFAULT, PLAIN) or not plain.is_file():
        return own
    return merged(read(plain), own)


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with the keys of the sections of `changes` in their place; neither is changed.

    A key whose value is a mapping (loss.terms) is replaced as a whole, as a list is.
    """
    result = dict(values)
    for section, value in changes.items():
        inner = result.get(section)
        both = isinstance(value, dict) and isinstance(inner, dict)
        result[section] = {**inner, **value} if both else value  # type: ignore[dict-item]
    return result


def use(
    name: str,
    path: Path = paths.PARAMS,
    folder: Path = paths.PRESETS,
    *,
    everything: bool = False,
) -> list[str]:
    """Write the preset's keys into params.yaml, comments and all other keys kept.

    Of `default`, which states every key, those that recipes set, unless `everything` is asked for.
    Returns the changed keys, "train.steps: 7000 -> 20000". Raises ConfigError, and leaves the file
    as it was, for an unknown preset and where the result would not be valid.
    """
    text(name, folder)
    yaml = _yaml()

    def read(file: Path) -> Any:
        return yaml.load(file.read_text("utf-8"))

    changes, plain = _whole(name, folder, read), folder / f"{PLAIN}.yaml"
    if name == DEFAULT and not everything:
        changes = {
            section: {key: changes[section][key] for key in keys}
            for section, keys in read(plain).items()
        }
    return write(changes, path)


def write(changes: Mapping[str, Any], path: Path = paths.PARAMS) -> list[str]:
    """Write nested `changes` into params.yaml, comments and all other keys kept; as `use`.

    What was written is read again before it takes the file's place: it must say what was meant.
    """
    yaml = _yaml()
    before = config.read_yaml(path)
    document = yaml.load(path.read_text(encoding="utf-8"))
    _write_into(document, changes)
    after = merged(before, dict(changes))
    config.check(after, path)
    with files.atomic_file(path) as fresh:
        with fresh.open("w", encoding="utf-8") as stream:
            yaml.dump(document, stream)
        if not _says(fresh, after):
            raise ConfigError(
                f"{path} cannot be written so that its comments stay where they are; it is as it "
                "was. Write its lists on one line, [a, b], their comments behind them, and try "
                "again; or bring the file back with `git checkout params.yaml`"
            )
    old, new = lineage.flatten(before), lineage.flatten(after)
    return [f"{key}: {old.get(key)} -> {new[key]}" for key in new if new[key] != old.get(key)]


def _says(path: Path, values: dict[str, Any]) -> bool:
    try:
        return config.read_yaml(path) == values
    except ConfigError:
        return False


def _yaml() -> Any:
    """Reads and writes as the file is: quotes, long lines, null."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # a long comment is no reason to break a line
    yaml.representer.add_representer(
        type(None), lambda own, _: own.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml


def _write_into(document: Any, changes: Any) -> None:
    """Key by key: a section put in as a whole would take its comments away."""
    for section, value in changes.items():
        if isinstance(value, dict) and isinstance(document.get(section), dict):
            for key, leaf in value.items():
                _put(document[section], key, leaf)
        else:
            document[section] = value


def _put(mapping: Any, key: str, value: Any) -> None:
    """Set a key. What stood in lines of its own below it, as DVC writes lists, leaves with them.

    ruamel keeps a block's comments with its items, and those above the first of them with the key,
    from where they would be put before a value on the key's own line, which is no YAML then.
    """
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.error import CommentMark
    from ruamel.yaml.tokens import CommentToken

    blocks = (CommentedMap, CommentedSeq)
    old = mapping.get(key)
    if isinstance(value, list | dict) and not isinstance(value, blocks):
        value = CommentedSeq(value) if isinstance(value, list) else CommentedMap(value)
        value.fa.set_flow_style()
    mapping[key] = value
    is_block = isinstance(value, blocks) and value.fa.flow_style() is False
    if not isinstance(old, blocks) or old.fa.flow_style() or is_block:
        return
    _, _, behind, above = mapping.ca.items.get(key) or [None] * 4
    kept = "".join(" " * token.start_mark.column + token.value for token in above or [])
    kept += _below(old)
    if behind or kept:
        line = behind.value if behind else "\n"
        mark = behind.start_mark if behind else CommentMark(0)
        mapping.ca.items[key] = [None, None, CommentToken(line + kept, mark), None]


def _below(block: Any) -> str:
    """The comments and empty lines below the last item of a block."""
    if not block:
        return ""
    last = (len(block) - 1) if isinstance(block, list) else next(reversed(block))
    inner = block[last]
    if hasattr(inner, "ca") and not inner.fa.flow_style():
        return _below(inner)
    tokens = block.ca.items.get(last)
    token = tokens and tokens[0 if isinstance(block, list) else 2]
    return token.value.partition("\n")[2] if token else ""


def _description(path: Path) -> str:
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)
