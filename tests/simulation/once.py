"""Play one day in a database that is there: ``python -m tests.simulation.once URL FOLDER SEED STEPS``.

Prints one JSON object: ``digest`` and ``trace``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tests.simulation.play import play
from tests.simulation.soak import be_quiet


def main() -> None:
    """Play as the command line says."""
    url, folder, seed, steps = sys.argv[1:]
    be_quiet()
    day = asyncio.run(play(url, Path(folder), int(seed), int(steps)))
    sys.stdout.write(json.dumps({"digest": day.digest, "trace": day.trace}))


if __name__ == "__main__":
    main()
