"""What a training hears of Ctrl-C and SIGTERM."""

import signal

import pytest

from pipeline import parallel
from pipeline.training import interrupts

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
