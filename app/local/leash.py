"""Run a program that knows nothing of parent pipes so that it ends when its parent does.

``python leash.py PROGRAM ARGUMENT...`` starts the program and waits; when its own standard input
reaches end-of-file (the parent is gone, however it died) or it is told to terminate, it terminates
the program, and kills it if it does not listen. It exits with the program's code (128 + n after
signal n). Runs by path with the standard library only: it must start fast and needs no package.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

GRACE_SECONDS = 5.0
EXIT_SIGNAL_BASE = 128
#: prctl(2): send the calling process this signal when its parent dies.
PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> int:
    """Run the command to its end and return its exit code."""
    dies_with_us = _die_with_parent if sys.platform == "linux" else None
    program = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=dies_with_us,  # noqa: PLW1509  no thread exists yet in this process
    )
    signal.signal(signal.SIGTERM, lambda *_: program.terminate())
    threading.Thread(target=_end_at_end_of_input, args=(program,), daemon=True).start()
    code = program.wait()
    return EXIT_SIGNAL_BASE - code if code < 0 else code


def _die_with_parent() -> None:
    # If this process alone is killed, nobody is left to read the pipe.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_at_end_of_input(program: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    program.terminate()
    try:
        program.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        program.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
