"""A packaged model in a process of its own, outside the repository, pickle forbidden.

What it does there is what a serving machine would do: the package must bring all that it needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.tracking import store

TIMEOUT = 3600
# Runs there, where `pipeline` may only come from the package's code.
PROGRAM = """
import json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
import mlflow.pyfunc
loaded = mlflow.pyfunc.load_model(sys.argv[1])
(answer,) = loaded.predict(json.loads(sys.argv[4]))
model = loaded.unwrap_python_model()
samples, labels = model.sample(**json.loads(sys.argv[3]))
np.savez(sys.argv[2], samples=samples, **({} if labels is None else {"labels": labels}))
import pipeline
print(json.dumps({"code": pipeline.__file__, "answer": sorted(answer)}))
"""


def sample(
    package: Path,
    *,
    n: int,
    seed: int,
    label: str | None = None,
    truncation: float = 1.0,
    labelling: str = "data",
) -> tuple[np.ndarray, np.ndarray | None]:
    """What the package samples: uint8 (n, H, W, C) or points (n, D), and the classes or None.

    Raises UserError where it does not load, or where its code is not its own.
    """
    from pipeline.registry.package import EXAMPLE

    request: dict[str, Any] = {"n": n, "seed": seed, "label": label, "truncation": truncation}
    if labelling != "data":  # a package of older code need not know it
        request["labelling"] = labelling
    example = [{**EXAMPLE[0], "format": "arrays"}]
    with tempfile.TemporaryDirectory(prefix="gan-") as scratch:
        out = Path(scratch) / "samples.npz"
        texts = [json.dumps(request), json.dumps(example)]
        told = run(["-c", PROGRAM, str(Path(package).resolve()), str(out), *texts], scratch)
        code = Path(json.loads(told.splitlines()[-1])["code"])
        if not code.is_relative_to(Path(package).resolve()):
            raise UserError(f"{package} was loaded with the code of {code.parent}, not its own")
        with np.load(out) as arrays:
            return arrays["samples"], arrays.get("labels")


def run(arguments: Sequence[str], folder: str) -> str:
    """Standard output of a Python process in `folder` that sees neither this repository nor pickle.

    Raises UserError with its last line where it fails.
    """
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"the packaged model does not load in a fresh process: {last}")
    return done.stdout


def environment(**changes: str) -> dict[str, Any]:
    """The environment of such a process."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return {
        **kept,
        **store.SETTINGS,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        **changes,
    }
