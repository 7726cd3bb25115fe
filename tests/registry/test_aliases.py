"""Moving the aliases: in a real store, interrupted, and by two at once."""

import json

import pytest

from pipeline.errors import UserError
from pipeline.registry import aliases, lineage
from pipeline.tracking import store

NAME = "gan-x"


@pytest.fixture
def client(quick_store, tmp_path):
    made, _ = store.ready("gan")
    made.create_registered_model(NAME)
    (tmp_path / "model").mkdir()
    for _ in range(4):
        made.create_model_version(NAME, str(tmp_path / "model"))
    return made


def champion(client) -> tuple[str | None, str | None]:
    return tuple(
        aliases.version_of(client, NAME, alias) for alias in (aliases.CHAMPION, aliases.PREVIOUS)
    )


def move(client, version: str) -> None:
    before, _ = champion(client)
    client.set_model_version_tag(NAME, version, aliases.REPLACED, before or "")
    aliases.move(client, NAME, champion=version, previous=before)


def test_one_can_go_back_as_far_as_one_came(client) -> None:
    assert champion(client) == (None, None)
    for version in "123":
        move(client, version)
    assert champion(client) == ("3", "2")
    assert aliases.go_back(client, NAME) == ("3", "2")
    assert champion(client) == ("2", "1")
    assert aliases.go_back(client, NAME) == ("2", "1")
    assert champion(client) == ("1", None)
    with pytest.raises(UserError, match="nothing to go back to"):
        aliases.go_back(client, NAME)


def test_a_challenger_that_wins_is_no_longer_one(client) -> None:
    client.set_registered_model_alias(NAME, aliases.CHALLENGER, "2")
    move(client, "1")
    assert aliases.version_of(client, NAME, aliases.CHALLENGER) == "2"
    move(client, "2")
    assert aliases.version_of(client, NAME, aliases.CHALLENGER) is None


@pytest.mark.parametrize(
    ("call", "nth"),
    [
        ("set_registered_model_alias", 1),
        ("set_registered_model_alias", 2),
        ("delete_registered_model_tag", 1),
    ],
)
def test_an_interrupted_move_is_finished_by_the_next_command(
    client, monkeypatch, call: str, nth: int
) -> None:
    move(client, "1")
    count = 0
    whole = getattr(client, call)

    def interrupted(*arguments):
        nonlocal count
        count += 1
        if count == nth:
            raise KeyboardInterrupt
        return whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(client, call, interrupted)
        with pytest.raises(KeyboardInterrupt):
            move(client, "2")
    assert aliases.repair(client, NAME) is None  # this process lives: it may still be at it
    monkeypatch.setattr(aliases, "is_gone", lambda process: True)
    assert "finished it, champion is version 2" in (aliases.repair(client, NAME) or "")
    assert champion(client) == ("2", "1")
    assert aliases.repair(client, NAME) is None


def test_an_old_intention_does_not_undo_a_later_move(client, monkeypatch) -> None:
    for version in "12":
        move(client, version)
    old = aliases.Intention("3", "1", "1", "gone:1:1", "token", 0.0)
    client.set_registered_model_tag(NAME, aliases.INTENTION, json.dumps(vars(old)))
    assert aliases.repair(client, NAME) is None
    assert champion(client) == ("2", "1")


def test_a_champion_that_changed_meanwhile_is_noticed(client) -> None:
    move(client, "1")
    aliases.unchanged(client, NAME, "1")
    move(client, "2")
    with pytest.raises(UserError, match="made version 2 of gan-x the champion"):
        aliases.unchanged(client, NAME, "1")


def test_of_two_at_once_on_a_shared_server_the_last_intention_wins(client, monkeypatch) -> None:
    monkeypatch.setattr(aliases.store, "is_local", lambda: False)
    other = aliases.Intention("3", None, None, aliases.this_process(), "token", 2e9)

    def sleep(seconds: float) -> None:  # meanwhile the other writes its own
        client.set_registered_model_tag(NAME, aliases.INTENTION, json.dumps(vars(other)))

    monkeypatch.setattr(aliases.time, "sleep", sleep)
    monkeypatch.setattr(aliases.time, "time", lambda: 2e9)
    with pytest.raises(UserError, match="made version 3"):
        move(client, "1")
    assert champion(client) == (None, None)
    with pytest.raises(UserError, match="made version 3"):
        move(client, "2")  # it is still at it


def test_one_promotion_at_a_time_here(tmp_path) -> None:
    with (
        aliases.exclusive(NAME),
        pytest.raises(UserError, match="another promotion or rollback"),
        aliases.exclusive(NAME),
    ):
        pass


def test_a_version_that_is_not_there_is_told_with_the_way_out(client) -> None:
    assert lineage.version_at(client, f"models:/{NAME}/4").version == 4
    for uri in ("models:/gan-y@champion", "models:/gan-y/1"):
        with pytest.raises(UserError, match="gan-y is not registered yet: gan promote registers"):
            lineage.version_at(client, uri)
    with pytest.raises(UserError, match=r"alias champion not found; gan-x has no alias yet, and"):
        lineage.version_at(client, f"models:/{NAME}@champion")
    client.set_registered_model_alias(NAME, aliases.CHAMPION, "1")
    with pytest.raises(UserError, match="gan-x has the aliases champion, and gan ui shows"):
        lineage.version_at(client, f"models:/{NAME}/9")
