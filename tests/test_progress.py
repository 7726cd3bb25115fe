"""Progress where there is no terminal: lines with count, rate and time left."""

import logging
import re

import pytest

from pipeline import progress


def test_lines_say_count_rate_and_time_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with progress.bar("train", total=10, start=4) as advance:
        advance(3, note="fd 2.00")
        advance(3)
    first, second, last = caplog.messages
    assert re.fullmatch(r"train: 7 of 10, \d+/s, \d+ s left, fd 2.00", first)
    assert re.fullmatch(r"train: 10 of 10, \d+/s, 0 s left", second)
    assert re.fullmatch(r"train: 6 in \d+\.\d s", last)


def test_few_lines_for_quick_work(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with progress.bar("read", total=5) as advance:
        for _ in range(5):
            advance()
    assert len(caplog.messages) == 1


def test_work_without_progress_has_no_end_in_sight(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level("INFO"), progress.bar("work", 10) as advance:
        advance(0)
    assert "0 of 10, 0/s, ? left" in caplog.text
