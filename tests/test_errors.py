"""Exit codes and messages of commands."""

import errno
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from pipeline import errors


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (errors.UserError("data.path is empty"), 1, "data.path is empty"),
        (errors.ConfigError("train.steps is 0"), 2, "train.steps is 0"),
        (OSError(errno.ENOSPC, "full", "data/prepared/train.npy"), 1, "data/prepared/train.npy"),
        (OSError(errno.EROFS, "read-only", "reports"), 1, "read-only"),
        (PermissionError(errno.EACCES, "no", "models"), 1, "permission denied"),
        (FileExistsError(errno.EEXIST, "exists", "reports"), 1, "reports: it is in the way"),
        (NotADirectoryError(errno.ENOTDIR, "no", "reports/x"), 1, "where a folder should be"),
        (KeyboardInterrupt(), 130, "continues"),
    ],
)
def test_a_users_mistake_is_a_message_and_a_code(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        errors.run(main)
    assert stopped.value.code == code
    assert words in capsys.readouterr().err


def test_a_bug_keeps_its_traceback() -> None:
    def main() -> None:
        raise FileNotFoundError(errno.ENOENT, "no such file", "x")

    with pytest.raises(FileNotFoundError):
        errors.run(main)


@pytest.mark.parametrize(
    ("argument", "code", "words"),
    [("--help", 0, "Makes nothing."), ("--steps=5", 2, "pipeline.stages.x takes no arguments")],
)
def test_a_stage_says_what_it_does_and_takes_no_arguments(
    argument: str, code: int, words: str, monkeypatch, capsys
) -> None:
    stage = ModuleType("__main__", "Makes nothing.")
    stage.__spec__ = ModuleSpec("pipeline.stages.x", None)
    monkeypatch.setitem(sys.modules, "__main__", stage)
    monkeypatch.setattr(sys, "argv", ["x.py", argument])
    with pytest.raises(SystemExit) as stopped:
        errors.run(lambda: pytest.fail("it ran"))
    captured = capsys.readouterr()
    assert stopped.value.code == code
    assert words in captured.out + captured.err
