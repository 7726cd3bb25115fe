"""One of a stage's processes, as `launch` starts it: `python -m pipeline.worker MODULE`.

It watches its launcher and minds Ctrl-C before it imports the stage, which takes seconds.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

LAUNCHER = "GAN_LAUNCHER_PID"


def main(module: str) -> None:
    follow(int(os.environ[LAUNCHER]))
    # Until the stage is imported and takes over: an exception would leave a traceback. The launcher
    # says what there is to say.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # held back until here
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def follow(launcher: int) -> None:
    """End with the launcher: left alone, processes would hold devices and the checkpoint's lock."""

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)  # what a training would hold back for a while

    threading.Thread(target=watch, name="follow", daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1])
