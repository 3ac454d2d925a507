"""``causeway desk``: deals, the position they leave, and the orders that hedge it."""

from __future__ import annotations

import typer

from app.cli import (
    desk_board,
    desk_deals,
    desk_hedges,
    desk_paper,
    desk_pnl,
    desk_quotes,
    desk_risk,
    desk_terms,
)

app = typer.Typer(
    help="Quotes, deals and their paper, hedges, limits, the position and its result.",
    no_args_is_help=True,
)
GROUPS = (
    *(desk_terms, desk_quotes, desk_deals, desk_hedges, desk_board, desk_pnl, desk_paper),
    desk_risk,
)
for group in GROUPS:
    group.register(app)
