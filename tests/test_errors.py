"""Exit codes and messages of commands."""

import errno
import signal
from collections.abc import Iterator

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


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT's handler as it was, afterwards."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_what_runs_may_clean_up_after_an_interrupt() -> None:
    """Until then the process may end at once."""
    signal.signal(signal.SIGINT, errors.interrupted)
    left = []

    def main() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            left.append("cleaned up")

    with pytest.raises(SystemExit) as stopped:
        errors.run(main)
    assert stopped.value.code == 130
    assert left


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 2 GiB",
        "CUDA error: out of memory",
        "Allocation on device 0 would exceed allowed memory. (out of memory)",
        "MPS backend out of memory (MPS allocated: 1 GB)",
    ],
)
def test_every_devices_lack_of_memory_is_known(words: str) -> None:
    assert errors.out_of_memory(RuntimeError(words))
    assert not errors.out_of_memory(ValueError(words))
    assert not errors.out_of_memory(RuntimeError("shape mismatch"))


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
