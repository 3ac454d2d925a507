"""``causeway settle net``: what the forms of netting come to, for obligations in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import AsJson, emit, show
from kernel.errors import BadInput

if TYPE_CHECKING:
    from settlement.netting.files import Owed
    from settlement.netting.model import Clearing, Forms

COLUMNS = (
    *("asset", "value_date", "gross", "bilateral", "circles", "multilateral", "set_off"),
    "obligations",
)


def register(app: typer.Typer) -> None:
    """Add this command to the group."""
    app.command()(net)


def net(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="CSV: debtor,creditor,asset,amount,value_date[,id]."),
    ],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the set-off notices go, as CSV.")
    ] = None,
    together: Annotated[
        bool,
        typer.Option("--together", help="Whatever the value date: all of them consent to that."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Clear circles of obligations between anybody, and show the forms of netting side by side.

    Each asset and value date is cleared by itself. Each column is what still moves under its form; the
    multilateral one needs a hub that steps between everybody. Nothing is posted: the platform is only the agent of those who owe.

    Example: `causeway settle net owed.csv --out notices.csv`
    """
    from settlement.netting.files import read_owed, write_notices

    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the file cannot be read: {error}", where=str(file)) from error
    found = [_cleared(owed) for owed in read_owed(text, together=together)]
    notices, digest = write_notices([(owed, clearing) for owed, clearing, _ in found])
    if out is not None:
        try:
            out.write_bytes(notices.encode())
        except OSError as error:
            raise BadInput(f"the notices cannot be written: {error}", where=str(out)) from error
    rows = [_row(owed, clearing, forms) for owed, clearing, forms in found]
    if as_json:
        assets = [
            {
                **dict(zip(COLUMNS, row, strict=True)),
                "method": clearing.method,
                "note": forms.note,
            }
            for row, (_, clearing, forms) in zip(rows, found, strict=True)
        ]
        emit({"assets": assets, "notices_sha256": digest, "notices": str(out) if out else None})
        return
    show("What moves under each form", COLUMNS, rows, as_json=False, right=COLUMNS[2:])
    for owed, _, forms in found:
        if forms.note:
            typer.echo(f"{owed.asset} {_dated(owed)}: {forms.note}")
    typer.echo(f"notices: {out or 'not written (--out FILE)'}, sha256 {digest}")


def _cleared(owed: Owed) -> tuple[Owed, Clearing, Forms]:
    from settlement.netting.cycles import clear_cycles
    from settlement.netting.forms import forms_of
    from settlement.solvers.loading import load_solvers

    typer.echo(
        f"clearing {len(owed.edges):,} obligations in {owed.asset} {_dated(owed)} …", err=True
    )
    clearing = clear_cycles(owed.edges, solvers=load_solvers())
    return owed, clearing, forms_of(owed.edges, clearing)


def _row(owed: Owed, clearing: Clearing, forms: Forms) -> tuple[str, ...]:
    moved = (forms.gross, forms.bilateral, clearing.remaining, forms.multilateral, forms.cleared)
    return (owed.asset, _dated(owed), *map(owed.told, moved), str(len(owed.edges)))


def _dated(owed: Owed) -> str:
    return "any date" if owed.value_date is None else owed.value_date.isoformat()
