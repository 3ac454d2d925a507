"""The nursery of `tests.crash.payer`, whose workers are traced: CAUSEWAY_OTLP_URL says where to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from kernel.otlp import exporting
from tests.crash.payer import Order, run


def main() -> None:
    """Fork a traced worker for each order."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
            with exporting(os.environ["CAUSEWAY_OTLP_URL"], service="payer"):
                asyncio.run(run(Order(**order)))
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
