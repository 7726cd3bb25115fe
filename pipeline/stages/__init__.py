"""One file a stage of dvc.yaml, each a command of its own: `python -m pipeline.stages.train`."""

import signal
import sys

from pipeline import errors

# A command's module is imported with what it needs, which takes seconds, and Ctrl-C in them would
# leave a traceback. Until the command runs (`errors.run`) it ends like this.
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, errors.interrupted)
