"""What a stage in several processes says at its end, and who says it."""

from __future__ import annotations

import os
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher import api

from pipeline import launch
from pipeline.errors import UserError
from pipeline.parallel import Lost


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has processes end with the given codes, by rank."""

    def with_codes(**codes: int) -> None:
        failures = {
            int(name[1:]): ProcessFailure(int(name[1:]), 1, code, "none")
            for name, code in codes.items()
        }

        def elastic(config: api.LaunchConfig, entrypoint: str) -> Any:
            def run(*arguments: str) -> None:
                assert arguments == ("-m", "some.stage")
                raise ChildFailedError("stage", failures)

            return run

        monkeypatch.setattr(api, "elastic_launch", elastic)

    monkeypatch.setattr(os, "environ", dict(os.environ))
    return with_codes


def test_the_process_that_was_killed_is_named_not_those_ended_after_it(ends: Any) -> None:
    ends(r0=-15, r1=-9)
    with pytest.raises(UserError, match=r"process 1 of 2 was killed \(SIGKILL\).*last checkpoint"):
        launch.launch(2, "some.stage")
    ends(r0=1, r1=-9)  # the first one lost it, and said so
    with pytest.raises(UserError, match="process 1 of 2 was killed"):
        launch.launch(2, "some.stage")


@pytest.mark.parametrize(
    ("codes", "code"), [({"r0": 1, "r1": -15}, 1), ({"r0": 2, "r1": 2}, 2), ({"r1": 130}, 130)]
)
def test_a_process_that_fails_has_said_why(ends: Any, codes: dict[str, int], code: int) -> None:
    ends(**codes)
    with pytest.raises(SystemExit) as ended:
        launch.launch(2, "some.stage")
    assert ended.value.code == code


def test_what_befalls_all_the_first_one_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    def loses() -> None:
        raise Lost("another one is gone")

    def fails() -> None:
        raise UserError("this one's own trouble")

    with pytest.raises(Lost):
        launch._work(loses)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        launch._work(loses)
    with pytest.raises(UserError):
        launch._work(fails)
