"""What cannot be read of what a bank sends.

::

    kernel.errors.BadInput
    └── FileUnreadable       a file is not what it claims to be: kept as it came, and not booked
"""

from __future__ import annotations

from kernel.errors import BadInput


class FileUnreadable(BadInput):
    """A file is not what it claims to be: kept as it came, and not booked."""
