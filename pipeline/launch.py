"""Starting a stage in as many processes as train.devices says, under torchrun.

`python -m pipeline.stages.train` starts them itself, with torchrun's own launcher. On several
machines start the stage by torchrun on each of them, whose numbers then count:

    torchrun --nnodes 2 --nproc-per-node 4 --node-rank 0 --master-addr FIRST --master-port 29500 \\
        -m pipeline.stages.train
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from pipeline import errors, logs, paths
from pipeline.config import check, read_yaml
from pipeline.errors import ConfigError, UserError

CONTINUES = "the same command continues at the last checkpoint"


def run(main: Callable[[], None], module: str) -> None:
    """Run a stage's `main`, here or in several processes; ends like `errors.run`."""
    errors.run(lambda: _run(main, module))


def _run(main: Callable[[], None], module: str) -> None:
    if under_torchrun():
        _follow(os.getppid())
        join()
        _work(main)
        return
    devices = check(read_yaml(paths.PARAMS)).train.devices
    if devices == 1:
        main()
    else:
        launch(devices, module)


def _work(main: Callable[[], None]) -> None:
    try:
        main()
    except UserError as error:
        if error.everywhere and not logs.speaks():
            raise SystemExit(error.exit_code) from None
        raise


def _follow(launcher: int) -> None:
    """End with the launcher: left alone, processes would hold devices and the checkpoint's lock."""

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="follow", daemon=True).start()


def under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def join() -> None:
    """Meet the other processes that torchrun started: over NCCL on CUDA, else over gloo.

    Raises ConfigError where the device is none that several processes can use.
    """
    import torch
    from torch import distributed

    device = check(read_yaml(paths.PARAMS)).train.device
    if device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        raise ConfigError("train.device: several processes need cpu or cuda; set one of them")
    use_cuda = device != "cpu" and torch.cuda.is_available()
    if use_cuda:
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"train.devices asks for CUDA device {local}, but torch sees "
                f"{torch.cuda.device_count()}; lower it"
            )
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


def launch(devices: int, module: str) -> None:
    """Run `python -m module` in `devices` processes on this machine and wait for them.

    Raises UserError where one is killed, SystemExit with its code where one fails: it has said why.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # it is told below
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    if sys.platform == "linux":  # its name may lead to an address that nobody answers at
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=f"gan-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        shutdown_timeout=5,
    )
    try:
        elastic_launch(config, sys.executable)("-m", module)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        # The launcher ends the others by SIGTERM once one is gone: the reason is any other.
        killed = {rank: -code for rank, code in codes.items() if code < 0}
        first = {rank: number for rank, number in killed.items() if number != signal.SIGTERM}
        failed = [code for code in codes.values() if code > 0]
        if failed and not first:
            raise SystemExit(max(failed)) from None
        rank, number = min((first or killed).items())
        raise UserError(
            f"process {rank} of {devices} was killed ({signal.Signals(number).name}); {CONTINUES}"
        ) from None
