"""What a training hears of Ctrl-C and SIGTERM."""

import signal
from collections.abc import Iterator

import pytest

from pipeline import parallel
from pipeline.training import interrupts


@pytest.fixture(autouse=True)
def heeds_interrupts() -> Iterator[None]:
    """A shell's job in the background ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


NUMBERS = pytest.mark.parametrize("number", interrupts.SIGNALS)


@NUMBERS
def test_the_first_is_told_and_another_ctrl_c_ends_at_once(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in interrupts.SIGNALS]
    with pytest.raises(KeyboardInterrupt), interrupts.held_back() as asked:
        assert not asked()
        signal.raise_signal(number)
        assert asked()
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second was held back too")
    assert [signal.getsignal(each) for each in interrupts.SIGNALS] == before


def test_what_is_ignored_stays_ignored() -> None:
    """As SIGINT is for a training behind `&`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.held_back() as asked:
        signal.raise_signal(signal.SIGINT)
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


@NUMBERS
def test_another_sigterm_is_no_impatience(number: signal.Signals) -> None:
    with interrupts.held_back() as asked:
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
        assert asked()


@NUMBERS
def test_of_several_processes_one_that_hears_of_it_twice_still_saves(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the terminal, and from the launcher that has heard of it there."""
    monkeypatch.setattr(parallel, "size", lambda: 2)
    with interrupts.held_back() as asked:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(number)
        assert asked()
