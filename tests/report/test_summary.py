from __future__ import annotations

import numpy as np
import pytest

from pipeline.report import summary

from .small_outs import GOOD, as_fid


def test_the_sentence_names_distance_test_images_floor_and_classes():
    told = summary.sentence(GOOD, "all 10 classes are present")
    assert told == (
        "fd 3.12 on 1,000 test images, 2.4 times the floor of 1.3 that real images reach; "
        "all 10 classes are present."
    )


def test_a_fid_is_told_as_an_fd_is():
    assert summary.sentence(as_fid(GOOD), "").startswith("fid 3.12 on 1,000 test images, 2.4 times")
    row = summary.figures(as_fid(GOOD))[0]
    assert (row.key, row.interval, row.reals) == ("fid", "2.8 to 3.3", "1.3")


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0012857, 3, "0.00129"),
        (3.126, 3, "3.13"),
        (950.4, 2, "950"),
        (12345.6, 3, "12,346"),
        (10.0, 2, "10"),
    ],
)
def test_numbers_are_written_without_powers_of_ten(value, digits, text):
    assert summary.number(value, digits) == text


def test_missing_classes_are_named_and_classes_without_training_images_are_not_missed():
    logits = np.eye(4)[[0, 0, 2]]
    names, counts = ["cat", "dog", "emu", "fox"], np.array([5, 5, 5, 0])
    told = summary.presence(logits, names, counts, modes=2, n_groups=4)
    assert told == "2 of 3 classes are present (missing: dog)"
    told = summary.presence(np.eye(4), names, np.full(4, 5), modes=4, n_groups=4)
    assert told == "all 4 classes are present"


def test_many_missing_classes_are_counted():
    names = [str(k) for k in range(12)]
    told = summary.presence(np.eye(12)[:2], names, np.ones(12), modes=2, n_groups=4)
    assert told == "2 of 12 classes are present (missing: 2, 3, 4, 5, 6 and 5 more)"


def test_without_labels_groups_are_counted():
    assert summary.presence(np.eye(4), None, None, 10, 10).startswith("all 10 groups")
    assert summary.presence(np.eye(4), None, None, 8, 10).startswith("8 of 10 groups")


def test_good_figures_raise_no_alarm():
    assert summary.alarms(GOOD) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("label_kl", 0.11), ("ndb_jsd", 0.06), ("selfnn_ratio", 0.49), ("control_real_vs_real", 0.0)],
)
def test_each_signal_beyond_its_threshold_and_each_failed_control_raises_one(key, value):
    found = summary.alarms({**GOOD, key: value})
    assert len(found) == 1
    assert key.removeprefix("control_") in found[0]


def test_every_metric_is_told_once_also_one_that_is_new():
    rows = {row.key: row for row in summary.figures({**GOOD, "ct_z": -0.5})}
    assert rows["fd"].interval == "2.8 to 3.3"
    assert rows["fd"].reals == "1.3"
    assert rows["kid"].interval == "± 0.002"
    assert rows["ct_z"].value == "-0.5"
    assert "fd_floor" not in rows
    assert rows["control_real_vs_real"].value == "passed"
    assert all(rows[meaning.key].meaning for meaning in summary.MEANINGS if meaning.key in rows)


def event(step: int, kind: str, text: str = "") -> dict[str, str]:
    return {"step": str(step), "kind": kind, "text": text}


def test_the_alarm_says_when_why_and_what_became_of_it():
    balance, sounded = event(20, "balance"), event(1500, "alarm", "collapse: label_kl 0.8")
    assert summary.alarm([]) == summary.alarm([balance]) == ""
    began = "The collapse alarm sounded at step 1,500 (label_kl 0.8)"
    assert summary.alarm([balance, sounded, balance]) == f"{began}; it sounded to the end."
    cleared = [sounded, event(2000, "clear")]
    assert summary.alarm(cleared) == f"{began}; it has been silent since."
    twice = [*cleared, event(3000, "alarm", "collapse: x")]
    assert summary.alarm(twice) == f"{began}, 2 times in all; it sounded to the end."
    stopped = [sounded, event(1500, "stop")]
    assert summary.alarm(stopped) == f"{began}; the training was stopped there."
    broken = [event(7, "not_finite", "NaN or inf"), event(7, "rollback")]
    told = "Training failed at step 7 (NaN or inf); the training was taken back 1 time; it has been"
    assert summary.alarm(broken) == f"{told} silent since."
