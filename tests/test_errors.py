"""Exit codes and messages of commands."""

import errno

import pytest
import torch

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


@pytest.mark.parametrize("shape", [(10**16,), (2**62, 2**62)])
def test_a_tensor_too_large_for_memory_is_told_with_the_way_out(
    shape: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        errors.run(lambda: torch.empty(shape))
    assert stopped.value.code == 1
    assert "out of memory: lower train.batch_size" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback() -> None:
    def main() -> None:
        raise FileNotFoundError(errno.ENOENT, "no such file", "x")

    with pytest.raises(FileNotFoundError):
        errors.run(main)
