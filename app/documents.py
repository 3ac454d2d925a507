"""What draws documents, where the extra ``documents`` is installed: a house without it writes texts."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from reporting.statements.issuing import Draw as DrawStatement
    from trading.confirmations.model import Draw

LIBRARY: Final = "reportlab"
DRAWING: Final = "trading.confirmations.pdf"
DRAWING_STATEMENTS: Final = "reporting.statements.pdf"


def find_draw() -> Draw | None:
    """Return what draws the PDF of a confirmation's text; None: the extra is not installed."""
    if importlib.util.find_spec(LIBRARY) is None:
        return None
    draw: Draw = importlib.import_module(DRAWING).draw
    return draw


def find_statement_draw() -> DrawStatement | None:
    """Return what draws the PDF of a client's statement; None: the extra is not installed."""
    if importlib.util.find_spec(LIBRARY) is None:
        return None
    draw: DrawStatement = importlib.import_module(DRAWING_STATEMENTS).draw
    return draw
