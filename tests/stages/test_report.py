from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline import paths
from pipeline.stages import report
from pipeline.tracking.deliver import report_key

from ..report import small_outs

REPOSITORY = Path(__file__).parents[2]


def test_the_stage_writes_the_page_also_where_no_server_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    small_outs.write(tmp_path, class_names=["cat", "dog"])
    report.main()
    assert report_key(paths.REPORT) == small_outs.EVAL_KEY
    assert list(paths.undelivered().glob(f"*/{paths.REPORT}"))
