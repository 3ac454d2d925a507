"""What an import refuses.

::

    CausewayError
    ├── BadInput
    │   └── FilesNotValid      faults in the files, each with file, line, column and what to do
    └── Refused
        ├── ImportDiffers      an import of this name has begun with other files
        ├── ImportStopped      the ledger refused a line; what was posted before it stays
        └── NotImported        the hold did not come with an import
"""

from __future__ import annotations

from collections.abc import Sequence

from kernel.errors import BadInput, Refused
from ledger.imports.model import Fault


class FilesNotValid(BadInput):
    """Nothing was posted: the files have faults."""

    def __init__(self, faults: Sequence[Fault], *, more: bool) -> None:
        self.faults = tuple(faults)
        self.more = more
        count = f"{len(faults)}{' or more' if more else ''} fault{'' if len(faults) == 1 else 's'}"
        lines = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(f"the files have {count}, nothing was posted:\n{lines}")


class ImportDiffers(Refused):
    """An import of this name has begun with other files."""


class ImportStopped(Refused):
    """The ledger refused a line; what was posted before it stays."""


class NotImported(Refused):
    """The hold did not come with an import."""
