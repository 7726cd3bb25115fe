"""MLflow's scoring server on a registered package: requests, mistakes, and a new champion."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.registry import aliases, fresh, package, provenance
from pipeline.tracking import store

pytestmark = pytest.mark.slow
NAME = "gan-x"
PROGRAM = """
import sys
from pipeline import logs
from pipeline.registry import serve
from pipeline.tracking import store
logs.setup()
client, _ = store.ready("gan")
sys.exit(serve.serve(client, "models:/gan-x@champion", host="127.0.0.1", port=0, workers=1))
"""


class Server:
    def __init__(self, process: subprocess.Popen, port: int) -> None:
        self.process, self.port = process, port

    def post(self, body: object) -> tuple[int, dict]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/invocations",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def sample(self, **row: object) -> dict:
        code, answer = self.post({"inputs": [row]})
        assert code == 200, answer
        (prediction,) = answer["predictions"]
        return prediction


@pytest.fixture(scope="module")
def served(kept_packages, tmp_path_factory) -> Iterator[tuple[Server, Path, Path]]:
    root = tmp_path_factory.mktemp("served")
    packages = [kept_packages(n_classes=10, n=700), kept_packages(n_classes=10, seed=1)]
    environment = {key: value for key, value in os.environ.items() if key != "DVC_ROOT"}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{root}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", environment["MLFLOW_TRACKING_URI"])
        client, _ = store.ready("gan")
        client.create_registered_model(NAME)
        for i, folder in enumerate(packages):
            copy = shutil.copytree(folder, root / f"package{i}")
            client.create_model_version(NAME, str(copy))
        client.set_registered_model_alias(NAME, aliases.CHAMPION, "1")
        with (root / "log").open("w") as said:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                cwd=root,
                env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
        try:
            line = process.stdout.readline()
            match = re.search(r"curl -s http://127\.0\.0\.1:(\d+)/", line)
            assert match, (line, (root / "log").read_text())
            (root / "curl.sh").write_text(line)
            yield Server(process, int(match[1])), packages[0], root
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            process.stdout.close()


def test_the_printed_curl_line_works(served) -> None:
    _, _, root = served
    done = subprocess.run(["sh", root / "curl.sh"], capture_output=True, text=True, check=True)
    (answer,) = json.loads(done.stdout)["predictions"]
    assert answer["model"] == f"{NAME}/1"
    assert Image.open(io.BytesIO(base64.b64decode(answer["grid"]))).size == (4 * 30 + 2, 32)


def test_it_samples_what_the_package_samples(served) -> None:
    server, folder, _ = served
    wanted, labels = fresh.sample(folder, n=6, seed=5)
    answer = server.sample(n=6, seed=5, format="arrays")
    assert np.array_equal(np.array(answer["arrays"], np.uint8), wanted)
    assert answer["labels"] == labels.tolist()
    pictures = server.sample(n=6, seed=5)["images"]
    for i, text in enumerate(pictures):
        image = Image.open(io.BytesIO(base64.b64decode(text)))
        assert np.array_equal(np.asarray(image), wanted[i, :, :, 0])
        origin = provenance.parse(image.info[provenance.KEYWORD])
        assert (origin.model, origin.seed, origin.index, origin.n) == (f"{NAME}/1", 5, i, 6)
        assert origin.weights == package.read_config(folder)["weights"]["generator"]


def test_label_and_truncation_reach_the_model(served) -> None:
    server, _, _ = served
    by_name = server.sample(n=3, label="digit 7", format="arrays")
    assert by_name["labels"] == [7, 7, 7]
    assert server.sample(n=3, label="7", format="arrays")["arrays"] == by_name["arrays"]
    nearer = server.sample(n=3, label="7", truncation=0.5, format="arrays")
    assert nearer["arrays"] != by_name["arrays"]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"n": 1, "sed": 3}, "sed"),
        ({"n": "many"}, "n"),
        ({"n": 0}, "n"),
        ({"n": 10_001}, "n"),
        ({"seed": -1}, "seed"),
        ({"label": 3}, "label"),
        ({"label": "cat"}, "label"),
        ({"truncation": 0}, "truncation"),
        ({"format": "jpeg"}, "format"),
    ],
)
def test_a_wrong_field_is_a_400_that_names_it(served, row: dict, named: str) -> None:
    server, _, _ = served
    code, answer = server.post({"inputs": [row]})
    assert code == 400
    assert re.search(rf"\b{named}\b", answer["message"].split("Error:")[-1])


def test_the_bound_counts_all_rows_of_a_request(served) -> None:
    server, _, _ = served
    code, answer = server.post({"inputs": [{"n": 6000}, {"n": 6000}]})
    assert code == 400
    assert "n: 12000 samples in one request; this model gives at most 10000" in answer["message"]


def test_rows_are_answered_each_by_itself(served) -> None:
    server, _, _ = served
    _, answer = server.post({"inputs": [{"n": 1, "seed": 1}, {"n": 2, "seed": 2}]})
    assert [len(row["images"]) for row in answer["predictions"]] == [1, 2]


def test_z_a_new_champion_is_taken_up_and_no_request_is_dropped(served) -> None:
    """Last in this file: it changes what is served."""
    server, _, root = served
    stop, codes, seen = threading.Event(), [], set()

    def ask() -> None:
        while not stop.is_set():
            code, answer = server.post({"inputs": [{"n": 200, "format": "grid"}]})
            codes.append(code)
            seen.add(answer["predictions"][0]["model"] if code == 200 else str(answer))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        client, _ = store.ready("gan")
        client.set_registered_model_alias(NAME, aliases.CHAMPION, "2")
    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    server.process.send_signal(signal.SIGHUP)
    for _ in range(1200):
        if f"serving {NAME}/2 in place of {NAME}/1" in (root / "log").read_text():
            break
        stop.wait(0.1)
    code, answer = server.post({"inputs": [{"n": 1, "format": "grid"}]})
    stop.set()
    for thread in asking:
        thread.join()
    assert (code, answer["predictions"][0]["model"]) == (200, f"{NAME}/2")
    assert set(codes) == {200}
    assert seen == {f"{NAME}/1", f"{NAME}/2"}
