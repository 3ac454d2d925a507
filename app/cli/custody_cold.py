"""``causeway custody cold``: transactions that people sign by hand, out of wallets without a process.

The file that goes out and the files that come back are PSBTs (BIP 174), in base64 or as bytes. On the
way back nothing in a file is believed but signatures, and those are verified.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from app.cli.common import AsJson, DryRun, clock, read, show, show_one, write
from app.cli.operators import As, Key, credentials
from kernel.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

    from chain.bitcoin.psbt import Psbt
    from chain.bitcoin.signing import SignedTransaction
    from custody.bitcoin.cold_psbt import ColdStory
    from custody.bitcoin.cold_spends import GivenOut
    from custody.bitcoin.spend_model import Spend

cold = typer.Typer(
    help="Transactions that people sign by hand, as PSBT files.", no_args_is_help=True
)

FILE_BYTES_MAX: Final = 12_000_000
"""The largest PSBT that is read, in base64."""

PayoutId = Annotated[UUID, typer.Argument(metavar="PAYOUT", help="Id of a payout in it.")]
ChainCode = Annotated[str, typer.Option("--chain", help="Code of the chain of Bitcoin.")]


@cold.command("list")
def list_waiting(*, chain: ChainCode = "bitcoin", as_json: AsJson = False) -> None:
    """List the transactions that wait for people to sign them.

    Example: `causeway custody cold list --chain bitcoin`
    """

    async def work(conn: AsyncConnection) -> list[Spend]:
        from custody.bitcoin.cold_spends import list_waiting as waiting

        return await waiting(conn, chain)

    columns = ("spend", "wallet", "fee cap", "since")
    rows = [
        (str(item.id), item.wallet, str(item.fee_cap), item.created_at.isoformat())
        for item in read(work)
    ]
    show("Waiting for signatures", columns, rows, as_json=as_json)


@cold.command()
def export(
    payout_id: PayoutId,
    *,
    to: Annotated[Path, typer.Option("--to", help="The new file.")],
    as_: As,
    key: Key,
    as_bytes: Annotated[
        bool, typer.Option("--bytes", help="Write the bytes themselves instead of base64.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the transaction that carries a payout into a file, for its people to sign.

    Compare what is shown here with what the signing device shows. From now on signatures may exist,
    so the transaction only ends in a block, or by another that spends the same coin.

    Example: `causeway custody cold export 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --to vault.psbt --as dan
    --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> GivenOut:
        from custody.bitcoin.cold_spends import export_spend
        from custody.bitcoin.spend_replace import find_spend

        me = await who.person(conn)
        spend = await find_spend(conn, payout_id)
        return await export_spend(conn, spend.id, by=me.operator, now=clock().now())

    if to.exists():
        raise BadInput("there is a file already", where=str(to), remedy="Name a new one")
    given = write(work)
    _write_new(to, given.psbt, as_bytes=as_bytes)
    facts = {"spend": str(given.spend_id), "wallet": given.wallet, **_facts(given.story)}
    facts |= {"deposits": given.descriptors[0], "change": given.descriptors[1], "file": str(to)}
    show_one("Given out to be signed", facts, as_json=as_json)


@cold.command()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A PSBT.")],
    *,
    wallet: Annotated[str, typer.Option(help="Whose transaction it is said to be.")],
    as_json: AsJson = False,
) -> None:
    """Say in words what a file does with the coins of a wallet, whoever made it.

    What comes back to the wallet is derived from the wallet's own keys.

    Example: `causeway custody cold inspect ann.psbt --wallet btc-vault`
    """
    psbt = _read(file)

    async def work(conn: AsyncConnection) -> ColdStory:
        from custody.bitcoin.cold_spends import inspect_part

        return await inspect_part(conn, wallet, psbt)

    show_one(f"What {file.name} does", _facts(read(work)), as_json=as_json)


@cold.command("import")
def import_(
    payout_id: PayoutId,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="The signed PSBTs.")],
    *,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take the signed files back: combined, checked against the transaction, and sent by the worker.

    A file that pays something else, returns less, spends other coins or costs another fee is refused.

    Example: `causeway custody cold import 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 ann.psbt --as dan
    --key dan.key`
    """
    who = credentials(as_, key)
    parts = [_read(file) for file in files]

    async def work(conn: AsyncConnection) -> SignedTransaction:
        from custody.bitcoin.cold_spends import import_spend
        from custody.bitcoin.spend_replace import find_spend

        me = await who.person(conn)
        spend = await find_spend(conn, payout_id)
        return await import_spend(conn, spend.id, parts, by=me.operator, now=clock().now())

    signed = write(work, dry_run=dry_run)
    facts = {
        "transaction": signed.tx_id,
        "fee": f"{signed.fee} satoshi",
        "virtual size": str(signed.virtual_size),
        "next": "the worker sends it",
    }
    show_one("Signed", facts, as_json=as_json, dry_run=dry_run)


def _read(file: Path) -> Psbt:
    from chain.bitcoin.psbt import read_psbt

    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise BadInput(f"the file has more than {FILE_BYTES_MAX} bytes", where=str(file))
        content = file.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read it: {error.strerror}", where=str(file)) from error
    return read_psbt(content)


def _write_new(file: Path, psbt: Psbt, *, as_bytes: bool) -> None:
    from chain.bitcoin.psbt import encode_psbt, to_base64

    content = encode_psbt(psbt) if as_bytes else f"{to_base64(psbt)}\n".encode()
    try:
        with file.open("xb") as target:
            target.write(content)
    except OSError as error:
        raise BadInput(
            f"cannot write it: {error.strerror}", where=str(file), remedy="Export it again"
        ) from error


def _facts(story: ColdStory) -> Mapping[str, str]:
    from custody.bitcoin.cold_psbt import story_facts

    return story_facts(story)
