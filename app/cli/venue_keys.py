"""``causeway venues key``: the API keys of our accounts, sealed in the database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import AsJson, Reason, clock, one_of, read, show, show_one, write
from app.cli.operators import As, Key, credentials
from app.cli.venue_places import PlaceText, split_place
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from venues.ccxt.endpoint import Credentials
    from venues.credentials.model import SealedKey, Slot

app = typer.Typer(help="API keys of accounts, sealed.", no_args_is_help=True)

Purpose = Annotated[str, typer.Option("--purpose", help="trading or withdrawal.")]
Kek = Annotated[
    Path, typer.Option("--kek", metavar="FILE", help="The key-encryption key, in a private file.")
]
COLUMNS = (
    *("place", "purpose", "version", "in_force", "kek_id", "generation"),
    *("enrolled_by", "enrolled", "reason", "retired"),
)


@app.command("new-kek")
def new_kek(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Make a key-encryption key: 32 random bytes in a file that only you can read.

    Example: `causeway venues key new-kek venues.kek`
    """
    import os

    from kernel.envelope import KEY_BYTES, kek_id_of
    from kernel.private_files import write_new_file

    kek = os.urandom(KEY_BYTES)
    write_new_file(path, f"{kek.hex()}\n".encode())
    facts = {"file": str(path), "kek_id": kek_id_of(kek)}
    show_one("Key-encryption key", facts, as_json=as_json)


@app.command("enrol")
def key_enrol(
    place: PlaceText,
    *,
    purpose: Purpose = "trading",
    file: Annotated[
        Path,
        typer.Option(
            "--file", metavar="FILE", help='A private file: {"api_key": "…", "secret": "…"}.'
        ),
    ],
    kek: Kek,
    reason: Reason,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Seal an account's API key into the database; the one that was in force is retired.

    Destroy the file when it is done. A key for trading must not be able to withdraw: the venue is
    asked before it is used.

    Example: `causeway venues key enrol binance/desk --file binance.json --kek venues.kek --reason "first key"
    --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> SealedKey:
        import os

        from kernel.private_files import read_kek
        from registry.model import Role
        from venues.credentials.vault import enrol

        me = await who.person(conn, Role.ADMIN, Role.OPERATIONS)
        return await enrol(
            conn,
            _slot(place, purpose),
            _read_credentials(file),
            read_kek(kek),
            random=os.urandom,
            by=me.code,
            reason=reason,
            now=clock().now(),
        )

    show_one("API key", _facts(write(work)), as_json=as_json)


@app.command("list")
def key_list(
    *,
    every: Annotated[bool, typer.Option("--all", help="Retired ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the API keys on record; nothing of them is shown.

    Example: `causeway venues key list`
    """

    async def work(conn: AsyncConnection) -> list[SealedKey]:
        from venues.credentials.vault import list_keys

        return await list_keys(conn, in_force=not every)

    rows = [tuple(_facts(item).values()) for item in read(work)]
    show("API keys", COLUMNS, rows, as_json=as_json)


@app.command("retire")
def key_retire(
    place: PlaceText,
    *,
    purpose: Purpose = "trading",
    reason: Reason,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Take an API key out of force and destroy what it is sealed in; delete it at the venue too.

    Example: `causeway venues key retire binance/desk --reason "a laptop was lost" --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> SealedKey:
        from registry.model import Role
        from venues.credentials.vault import retire

        me = await who.person(conn, Role.ADMIN, Role.OPERATIONS)
        slot = _slot(place, purpose)
        return await retire(conn, slot, by=me.code, reason=reason, now=clock().now())

    show_one("Retired", _facts(write(work)), as_json=as_json)


@app.command("rewrap")
def key_rewrap(
    *,
    kek: Kek,
    new: Annotated[
        Path, typer.Option("--new-kek", metavar="FILE", help="The key that opens them from now on.")
    ],
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Wrap every API key in force with a new key-encryption key, all or none.

    Asked again after a crash it changes nothing. Backups from before still open with the old one.

    Example: `causeway venues key rewrap --kek venues.kek --new-kek next.kek --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> list[SealedKey]:
        import os

        from kernel.private_files import read_kek
        from registry.model import Role
        from venues.credentials.vault import list_keys, rewrap_all

        me = await who.person(conn, Role.ADMIN, Role.OPERATIONS)
        await rewrap_all(
            conn, read_kek(kek), read_kek(new), random=os.urandom, by=me.code, now=clock().now()
        )
        return await list_keys(conn, in_force=True)

    rows = [tuple(_facts(item).values()) for item in write(work)]
    show("API keys", COLUMNS, rows, as_json=as_json)


def _slot(place: str, purpose: str) -> Slot:
    from venues.credentials.model import KeyPurpose, Slot

    venue, account = split_place(place)
    return Slot(venue, account, one_of(KeyPurpose, purpose, "purpose"))


def _read_credentials(path: Path) -> Credentials:
    import msgspec

    from kernel.private_files import read_private_file
    from kernel.settings import Secret
    from venues.ccxt.endpoint import Credentials

    try:
        found = msgspec.json.decode(read_private_file(path), type=dict[str, str])
    except msgspec.DecodeError:
        found = {}
    if set(found) != {"api_key", "secret"}:
        # The decoder's own words might quote the secret.
        raise BadInput(
            "this is no API key", where=str(path), remedy='Write {"api_key": "…", "secret": "…"}'
        )
    return Credentials(api_key=found["api_key"], secret=Secret(found["secret"]))


def _facts(item: SealedKey) -> dict[str, str]:
    return {
        "place": f"{item.slot.venue}/{item.slot.account}",
        "purpose": str(item.slot.purpose),
        "version": str(item.version),
        "in_force": "yes" if item.retired_at is None else "no",
        "kek_id": item.envelope.kek_id,
        "generation": str(item.envelope.generation),
        "enrolled_by": item.enrolled_by,
        "enrolled": iso(item.enrolled_at),
        "reason": item.reason,
        "retired": "" if item.retired_at is None else iso(item.retired_at),
    }
