"""Starting a stage in as many processes as train.devices says, under torchrun.

`python -m pipeline.stages.train` starts them itself, with torchrun's own launcher. On several
machines start the stage by torchrun on each of them, whose numbers then count:

    torchrun --nnodes 2 --nproc-per-node 4 --node-rank 0 --master-addr FIRST --master-port 29500 \\
        -m pipeline.stages.train
"""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from pipeline import arguments, errors, files, paths, worker
from pipeline.config import check, read_yaml
from pipeline.errors import ConfigError, UserError
from pipeline.lineage import Inputs, difference

TOLD = "GAN_TOLD"  # the environment's name for the folder in which processes leave their messages
DONE = "done"  # a file in that folder


class Differ(UserError):
    """Processes that compute together, on several machines, have other inputs."""

    everywhere = True


def run(main: Callable[[], None], module: str) -> None:
    """Run a stage's `main`, here or in several processes; ends like `errors.run`."""
    arguments.none(module, inspect.getdoc(inspect.getmodule(main)))
    if not under_torchrun():
        errors.run(lambda: _run(main, module))
        return
    try:
        errors.run(lambda: _work(main), _tell)
        _tell_done()
    except BaseException as error:
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        code = error.code if isinstance(error, SystemExit) else 1
        # At the interpreter's own end the process group would wait for the others, or abort.
        os._exit(code if isinstance(code, int) else 1)


def _run(main: Callable[[], None], module: str) -> None:
    devices = check(read_yaml(paths.PARAMS)).train.devices
    if devices == 1:
        main()
    else:
        launch(devices, module)


def _work(main: Callable[[], None]) -> None:
    if worker.LAUNCHER in os.environ:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the worker had its own
    else:
        worker.follow(os.getppid())
    join()
    main()


def _tell(message: str, error: BaseException) -> None:
    """Leave the message to the launcher, where it is ours, which hears of all and speaks once."""
    everywhere = getattr(error, "everywhere", isinstance(error, KeyboardInterrupt))
    if TOLD in os.environ:
        told = {"message": message, "lost": isinstance(error, errors.Lost)}
        with contextlib.suppress(OSError):  # as on a full disk
            files.write_json(Path(os.environ[TOLD]) / os.environ["RANK"], told)
            return
    if not everywhere or os.environ.get("LOCAL_RANK", "0") == "0":
        errors.say(message)


def _tell_done() -> None:
    """Tell the launcher, where it is ours, that the first process has done all there was to do."""
    if TOLD in os.environ and os.environ["RANK"] == "0":
        (Path(os.environ[TOLD]) / DONE).touch()


def under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def join() -> None:
    """Meet the other processes that torchrun started: over NCCL on CUDA, else over gloo.

    Raises ConfigError where the device is none that several processes can use.
    """
    import torch
    from torch import distributed

    device = check(read_yaml(paths.PARAMS)).train.device
    on_mps = device == "mps" or (device == "auto" and torch.backends.mps.is_available())
    if on_mps or ":" in device:  # they take the devices of a machine in turn
        raise ConfigError(
            f"train.device is {device!r}, which several processes cannot share: "
            "set it to cpu or cuda"
        )
    use_cuda = device != "cpu" and torch.cuda.is_available()
    if use_cuda:
        here, seen = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if here > seen:  # in all of them, not only in those that have none
            raise ConfigError(
                f"{here} processes on this machine need a CUDA device each, but torch sees {seen}: "
                "lower train.devices (under torchrun --nproc-per-node), or set train.device to cpu"
            )
        local = int(os.environ["LOCAL_RANK"])
        torch.cuda.set_device(local)
        distributed.init_process_group("nccl", device_id=torch.device("cuda", local))
    else:
        distributed.init_process_group("gloo")


def leave() -> bool:
    """Part from the other processes, once nothing is left to share. Whether this is process 0.

    It stays, with the threads of all on this machine. BLAS keeps to its own: where figures are
    computed it may have but one.
    """
    import torch
    from torch import distributed

    from pipeline import parallel

    first = parallel.rank() == 0
    if distributed.is_initialized():
        distributed.destroy_process_group()
        if first:
            threads = torch.get_num_threads() * int(os.environ["LOCAL_WORLD_SIZE"])
            torch.set_num_threads(min(threads, os.cpu_count() or 1))
    return first


def agree(inputs: Inputs, **meetings: Any) -> None:
    """End every process where one has other `inputs` than process 0.

    `meetings` are values that decide no number but when processes meet; the others would wait for
    ever. Raises Differ, in all of them alike.
    """
    from pipeline import parallel

    if parallel.size() == 1:
        return
    mine = {**inputs, "params": {**inputs["params"], **meetings}}
    mine = json.loads(json.dumps(mine))  # as process 0's come
    found = parallel.all_gather_object(
        [socket.gethostname(), difference(parallel.broadcast_object(mine), mine)]
    )
    for rank, (host, lines) in enumerate(found):
        if lines:
            told = "; ".join(lines[:5]) + ("; ..." if len(lines) > 5 else "")
            raise Differ(
                f"process {rank} (on {host}) has other inputs than process 0 (on {found[0][0]}): "
                f"{told}. Give every machine the same params.yaml, code and data (git pull, "
                "dvc pull), and start the stage again on all of them"
            )


def launch(devices: int, module: str) -> None:
    """Run `python -m module` in `devices` processes on this machine and wait for them.

    Raises UserError where one is killed, KeyboardInterrupt where this one was asked to end before
    they were done, SystemExit with their code where they fail: why is said.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed", *logging.root.manager.loggerDict):
        if name.startswith("torch.distributed"):  # some have a level of their own
            logging.getLogger(name).setLevel(logging.CRITICAL)  # it is told below
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    if sys.platform == "linux":  # its name may lead to an address that nobody answers at
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory(prefix="gan-launch-") as folder:
        told = Path(folder) / "told"
        told.mkdir()
        os.environ |= {worker.LAUNCHER: str(os.getpid()), TOLD: str(told)}
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=devices,
            run_id=f"gan-{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="127.0.0.1",
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            max_restarts=0,
            shutdown_timeout=30,  # a training saves itself first, and tells MLflow
        )
        try:
            with _interrupts_held_back():
                elastic_launch(config, sys.executable)("-m", worker.__name__, module)
        except SignalException:
            if not (told / DONE).exists():
                _explain_interrupt(told, module)
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
            _explain(codes, told, devices, module)


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Processes started within hear of Ctrl-C only where they ask for it, this one at once.

    An interpreter that is just starting would leave a traceback.
    """
    ended = threading.Event()
    threading.Thread(target=ended.wait, name="interrupts", daemon=True).start()  # it takes them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # of this thread's children
    try:
        yield
    finally:
        ended.set()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _way_on(module: str) -> str:
    if module.endswith(".train"):
        return "the same command continues at the last checkpoint"
    return "run the same command again"


def _explain_interrupt(told: Path, module: str) -> NoReturn:
    """Say how processes ended that were asked to, and end so.

    Only the first one saves: where it has not told that it obeyed, there is nothing new.
    """
    heard = _heard(told)
    mistakes = _mistakes(heard)
    if mistakes:
        for message in dict.fromkeys(mistakes.values()):
            errors.say(message)
        raise SystemExit(1)
    if 0 in _interrupts(heard):
        raise KeyboardInterrupt from None
    errors.say(f"interrupted; {_way_on(module)}")
    raise SystemExit(130)


def _heard(told: Path) -> dict[int, dict[str, Any]]:
    """What processes have told of their ends, by rank."""
    paths_of = {int(path.name): path for path in told.iterdir() if path.name.isdigit()}
    return {rank: files.read_json(path) for rank, path in sorted(paths_of.items())}


def _mistakes(heard: dict[int, dict[str, Any]]) -> dict[int, str]:
    """Messages, by rank, of what is neither the loss of another process nor an interrupt."""
    return {
        rank: one["message"]
        for rank, one in heard.items()
        if not one["lost"] and one["message"] != errors.INTERRUPTED
    }


def _interrupts(heard: dict[int, dict[str, Any]]) -> dict[int, str]:
    messages = {rank: one["message"] for rank, one in heard.items()}
    return {rank: told for rank, told in messages.items() if told == errors.INTERRUPTED}


def _explain(codes: dict[int, int], told: Path, devices: int, module: str) -> NoReturn:
    """Say once why processes failed, by their exit codes and what each has told, and end so."""
    heard = _heard(told)
    causes = _mistakes(heard) or _interrupts(heard)
    if causes:
        for message in dict.fromkeys(causes.values()):
            errors.say(message)
        raise SystemExit(max(1, *(codes[rank] for rank in causes)))
    # The launcher ends the others by SIGTERM once one is gone, and NCCL by SIGABRT where it lost
    # one: the reason is any other.
    killed = {rank: -code for rank, code in codes.items() if code < 0}
    first = {rank: number for rank, number in killed.items() if number != signal.SIGTERM}
    failed = {rank: code for rank, code in codes.items() if code > 0}
    if failed and not first:
        if failed.keys() <= heard.keys():  # else one that failed left its traceback
            errors.say(heard[min(failed)]["message"])
        raise SystemExit(max(failed.values()))
    aborted = signal.SIGABRT
    number = min((first or killed).values(), key=lambda number: number == aborted)
    name = signal.Signals(number).name
    # One that waits on a GPU for another obeys no SIGTERM and gets SIGKILL as well: no telling.
    ranks = [str(rank) for rank, its in sorted(killed.items()) if its == number]
    one = len(ranks) == 1
    who = f"process{'' if one else 'es'} {', '.join(ranks)} of {devices} {'was' if one else 'were'}"
    message = f"{who} killed ({name}); {_way_on(module)}"
    if number == signal.SIGKILL:
        message += (
            f". Where nobody sent it, the system did for lack of memory: {errors.LESS_MEMORY}"
        )
    raise UserError(message)
