"""python -m gmm_jax is the command gmm-jax."""

import os
import signal
import sys
import threading
from typing import NoReturn

INTERRUPTED = 130


def main() -> NoReturn:
    """The command gmm-jax, which ends the process: with 130 after Ctrl-C, whatever the interrupted code made of it."""
    interrupted = False

    def interrupt(_, frame):
        nonlocal interrupted
        interrupted = True
        while frame is not None:  # modules with a bare except swallow what is raised while they are imported
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                os.write(2, b"interrupted.\n")
                os._exit(INTERRUPTED)
            frame = frame.f_back
        raise KeyboardInterrupt

    def again(lost):
        """JAX's callback at garbage collection swallows what is raised in it."""
        if lost.exc_type is KeyboardInterrupt:
            threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
        else:
            sys.__unraisablehook__(lost)

    signal.signal(signal.SIGINT, interrupt)
    sys.unraisablehook = again
    try:
        from .cli import main as command
        from .shell import unread

        try:
            code = _code_of(command)
            sys.stdout.flush()
        except BrokenPipeError:
            code = unread()
    except BaseException:  # an extension module that is interrupted while it is imported raises an ImportError
        if not interrupted:
            raise
        print("interrupted.", file=sys.stderr)
        code = INTERRUPTED
    if interrupted:  # threads that compile are in the middle of it, and Python's own end takes away what they use
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    sys.exit(code)


def _code_of(command):
    try:
        return command()
    except SystemExit as leave:  # of --help
        return leave.code


if __name__ == "__main__":
    main()
