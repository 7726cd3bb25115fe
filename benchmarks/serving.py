"""Latency and images/s of the scoring server and of the plain module, side by side.

    python benchmarks/serving.py [--package models/package] [--rounds 50] [--docs]

Each round asks the server, the packaged model in this process (`predict`) and the bare network, one
after the other, so that what else runs on the machine hits all alike. Overhead is the median of
server less `predict` of the same round: HTTP, JSON, validation, the event loop. On a machine that
does other work it is mostly waiting for a core, so the processors' time is measured too: the
server's, all its threads, less that of `predict`. `--docs` writes the table into docs/registry.md.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from pipeline import lineage, paths
from pipeline.registry import package
from pipeline.sampling import latents, to_uint8

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "registry.md"
WARM_UP = 5  # rounds
CASES = {"1 PNG": (1, "png"), "64 PNGs": (64, "png"), "64 as arrays": (64, "arrays")}
SERVER = """
import sys
from pipeline.registry import serve
from pipeline.tracking import store
client, _ = store.ready("gan")
client.create_registered_model("gan-x")
client.create_model_version("gan-x", sys.argv[1])
sys.exit(serve.serve(client, "models:/gan-x/1", host="127.0.0.1", port=0, workers=1))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, default=paths.PACKAGE)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--docs", action="store_true")
    given = parser.parse_args()
    with package.quiet():
        import mlflow.pyfunc

        model = mlflow.pyfunc.load_model(str(given.package)).unwrap_python_model()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shutil.copytree(given.package, folder / "package")
        environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", SERVER, str(folder / "package")],
                env={**environment, "PYTHONPATH": str(ROOT)},
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            port = int(re.search(r":(\d+)/", line)[1])  # type: ignore[index]
            rows = [measure(name, model, port, process.pid, given.rounds) for name in CASES]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
    text = table(rows, model.config, given.rounds)
    print(text)
    if given.docs:
        whole = DOCS.read_text(encoding="utf-8")
        pattern = re.compile("<!-- serving -->.*?<!-- end -->", re.S)
        block = f"<!-- serving -->\n{text}\n<!-- end -->"
        DOCS.write_text(pattern.sub(lambda _: block, whole, count=1), encoding="utf-8")


def cpu_seconds(pid: int) -> float:
    """Of a process and those that it started."""
    parent = psutil.Process(pid)
    times = [x.cpu_times() for x in (parent, *parent.children(recursive=True))]
    return sum(x.user + x.system for x in times)


def measure(name: str, model, port: int, pid: int, rounds: int) -> dict[str, float | str]:
    """Median milliseconds of each way, and of the server's overhead; its mean in CPU time."""
    n, form = CASES[name]
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body = json.dumps({"inputs": [{"n": n, "seed": 0, "format": form}]})
    predict = type(model).predict
    vectors = latents(n, model.config["generator"]["latent_dim"], 0)
    labels = model.labels(n, 0, None, "data")
    classes = None if labels is None else torch.from_numpy(labels)

    def server() -> None:
        connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200

    def packaged() -> None:
        model.predict([{"n": n, "seed": 0, "format": form}])

    def plain() -> None:
        with torch.inference_mode():
            to_uint8(model.generator(vectors, classes))

    assert predict is not None
    ways: dict[str, Callable[[], None]] = {
        "server": server,
        "predict": packaged,
        "module": plain,
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    of_predict = of_server = 0.0
    for i in range(rounds + WARM_UP):
        if i == WARM_UP:
            of_predict, of_server = 0.0, cpu_seconds(pid)
        for way, call in ways.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            call()
            if way == "predict":
                of_predict += time.process_time() - began_cpu
            if i >= WARM_UP:
                times[way].append(1000 * (time.perf_counter() - began))
    of_server = cpu_seconds(pid) - of_server
    extra = [a - b for a, b in zip(times["server"], times["predict"], strict=True)]
    medians = {way: statistics.median(values) for way, values in times.items()}
    return {
        "name": name,
        "n": n,
        **medians,
        "overhead": statistics.median(extra),
        "cpu": 1000 * (of_server - of_predict) / rounds,
    }


def table(rows: list[dict], config: dict, rounds: int) -> str:
    generator = config["generator"]
    lines = [
        f"{generator['name']}, width {generator['width']}, {generator['shape']}, one worker, "
        f"{torch.get_num_threads()} torch thread(s) here; {lineage.processor()}, load "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; medians of {rounds}:",
        "",
        "| | bare network | `predict` | server | server's overhead | of it CPU time | "
        "images/s, server | bare |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {row['name']} | {row['module']:.1f} ms | {row['predict']:.1f} ms | "
            f"{row['server']:.1f} ms | {row['overhead']:.1f} ms | "
            f"{row['cpu']:.1f} ms | "
            f"{1000 * row['n'] / row['server']:,.0f} | {1000 * row['n'] / row['module']:,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
