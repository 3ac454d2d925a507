"""What moves between books refuse; what a book refuses is an outcome of the move, not an error.

::

    Refused
    ├── NoSuchMove             there is no move of that id
    ├── MoveReferenceTaken     the reference names a move of other content
    └── MoveNotPossible        the accounts do not fit each other, or do not exist
"""

from __future__ import annotations

from kernel.errors import Refused


class NoSuchMove(Refused):
    """There is no move of that id."""


class MoveReferenceTaken(Refused):
    """The reference names a move of other content."""


class MoveNotPossible(Refused):
    """The accounts do not fit each other, or do not exist."""
