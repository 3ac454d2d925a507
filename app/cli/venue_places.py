"""``VENUE/ACCOUNT`` on the command line: how it is written, and whether it is ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kernel.errors import BadInput, Refused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

PlaceText = Annotated[str, typer.Argument(metavar="VENUE/ACCOUNT", help="Our account there.")]


def split_place(text: str) -> tuple[str, str]:
    """Return the codes of venue and account.

    Raises:
        BadInput: it is not written as one.
    """
    venue, _, account = text.partition("/")
    if not (venue and account) or "/" in account:
        raise BadInput(f"{text!r} is no account", remedy="Write VENUE/ACCOUNT, as binance/desk")
    return venue, account


async def known_place(conn: AsyncConnection, text: str) -> tuple[str, str]:
    """Return the codes of an account that is ours: a key was enrolled for it, or something hedged.

    An empty list for a misspelt account would say that all is well, and a halt of it halts nothing.

    Raises:
        BadInput: it is not written as one.
        Refused: we have no such account.
    """
    from trading.hedges.lines import list_lines
    from venues.credentials.vault import list_keys

    venue, account = split_place(text)
    keys = await list_keys(conn, in_force=False)
    known = {f"{key.slot.venue}/{key.slot.account}" for key in keys}
    known |= {place.name for line in await list_lines(conn) for place in line.places}
    if text not in known:
        names = ", ".join(sorted(known))
        raise Refused(
            f"there is no account {text!r}",
            remedy=f"There is {names}" if names else "Run `causeway venues key enrol`",
        )
    return venue, account
