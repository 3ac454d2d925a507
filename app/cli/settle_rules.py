"""``causeway settle`` rules: what a party agreed to, where it is paid, and what a call back said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli import settle_agreements, settle_collateral, settle_limits
from app.cli.common import (
    AsJson,
    DryRun,
    Reason,
    clock,
    one_of,
    parse_date,
    read,
    show,
    show_one,
    write,
)
from app.cli.operators import Approver, ApproverKey, As, Key, credentials

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from sqlalchemy.ext.asyncio import AsyncConnection

    from trading.terms.model import StandingInstruction

RailName = Annotated[str, typer.Option("--rail", help="How value moves there.")]


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    settle_agreements.register(app)
    app.command()(instruct)
    app.command("call-back")(call_back)
    app.command()(instructions)
    app.command("pay-to")(pay_to)
    app.add_typer(settle_limits.app, name="limits")
    app.add_typer(settle_collateral.app, name="collateral")


def instruct(
    party: str,
    asset: str,
    destination: Annotated[
        str,
        typer.Argument(metavar="DESTINATION", help="An address, or of a bank IBAN|BIC|name."),
    ],
    *,
    rail: RailName = "evm",
    effective_from: Annotated[
        str | None,
        typer.Option("--effective-from", help="ISO date; else the first day possible."),
    ] = None,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Set where a party is to be paid in an asset, signed by a second operator.

    The first instruction is in force from today on. A change cools off for two days, and counts only
    once somebody has called the party back: `causeway settle call-back`. A payout needs the address
    to be an allowed destination of the party as well.

    By rail `bank` it is an account at a bank, written `"IBAN|BIC|name"`.

    Example: `causeway settle instruct acme ETH 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --as ada --key ada.key
    --approver ben --approver-key ben.key`
    """
    from trading.terms.model import Rail

    first, second = credentials(as_, key), credentials(approver, approver_key)
    way = one_of(Rail, rail, "rail")
    now = clock().now()
    start = None if effective_from is None else parse_date(effective_from, now)
    if way is Rail.BANK:
        from app.bank_details import require_known_bank

        require_known_bank(destination)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from trading.terms.standing import (
            canonical_destination,
            get_version,
            list_standing_instructions,
            next_version,
            standing_instruction_bytes,
        )
        from trading.terms.standing import instruct as verb
        from trading.terms.standing_rules import earliest_start

        to = await canonical_destination(conn, asset, way, destination)
        me, other = await first.person(conn), await second.person(conn)
        version = await next_version(conn, party, asset, way)
        begins = start or earliest_start(version, now.date())
        payload = standing_instruction_bytes(
            party, asset, way, to, effective_from=begins, version=version
        )
        written = await verb(
            conn,
            party=party,
            asset=asset,
            rail=way,
            destination=to,
            effective_from=begins,
            by=me.operator,
            approver=other.operator,
            signature=other.sign(payload),
            now=now,
        )
        item = await get_version(conn, party, asset, way, written)
        return _facts(item, await list_standing_instructions(conn, party), now.date())

    found = write(work, dry_run=dry_run)
    show_one("Standing instruction", found, as_json=as_json, dry_run=dry_run)


def call_back(
    party: str,
    asset: str,
    version: Annotated[int, typer.Argument(min=1, help="Which version of the instruction.")],
    *,
    confirmed: Annotated[
        bool, typer.Option("--confirmed/--denied", help="Whether the party asked for it.")
    ],
    reference: Annotated[str, typer.Option("--ref", help="Where the note of the call is kept.")],
    rail: RailName = "evm",
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Record what a party said when it was called back about where it is to be paid.

    Call at a number that you had before the change came in. Whoever entered the change cannot confirm
    it. What is denied never counts, and is out of force at once.

    Example: `causeway settle call-back acme ETH 2 --confirmed --ref calls/17 --as dan --key dan.key`
    """
    from trading.terms.model import Rail

    who = credentials(as_, key)
    way = one_of(Rail, rail, "rail")
    now = clock().now()

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from trading.terms.standing import list_standing_instructions, record_call_back

        me = await who.person(conn)
        item = await record_call_back(
            conn,
            party=party,
            asset=asset,
            rail=way,
            version=version,
            confirmed=confirmed,
            reference=reference,
            by=me.operator,
            now=now,
        )
        return _facts(item, await list_standing_instructions(conn, party), now.date())

    show_one("Standing instruction", write(work), as_json=as_json)


def instructions(
    party: Annotated[str | None, typer.Argument(help="Only of this party.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List where parties are paid: every version, whether it is in force, and what it waits for.

    Example: `causeway settle instructions acme`
    """
    today = clock().now().date()

    async def work(conn: AsyncConnection) -> list[dict[str, str]]:
        from trading.terms.standing import list_standing_instructions

        found = await list_standing_instructions(conn, party)
        return [_facts(item, found, today) for item in found]

    columns = (
        *("party", "asset", "rail", "version", "state", "destination", "effective_from"),
        *("call_back", "entered_by", "approved_by"),
    )
    rows = [tuple(facts[name] for name in columns) for facts in read(work)]
    show("Standing instructions", columns, rows, as_json=as_json, right=("version",))


def pay_to(
    instruction: Annotated[UUID, typer.Argument(metavar="INSTRUCTION", help="Id of the payment.")],
    version: Annotated[int, typer.Argument(min=1, help="The standing instruction in force now.")],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Have one payment go to the standing instruction in force, though its deals were made under another.

    Where a party is paid has changed between the deal and its payment: that is how settlement fraud
    looks. Call the party back at a number that you had before, and say so in the reason.

    Example: `causeway settle pay-to 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 2 --reason "called back, calls/17" --as ada --key ada.key
    --approver ben --approver-key ben.key`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)
    now = clock().now()

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from settlement.standing import choice_bytes, choose_standing

        me, other = await first.person(conn), await second.person(conn)
        found = await choose_standing(
            conn,
            instruction,
            version,
            by=me.operator,
            approver=other.operator,
            signature=other.sign(choice_bytes(instruction, version, reason)),
            reason=reason,
            now=now,
        )
        return {
            "instruction": str(instruction),
            "party": found.party,
            "destination": found.destination,
            "version": str(found.version),
            "entered_by": me.code,
            "approved_by": other.code,
        }

    found = write(work, dry_run=dry_run)
    show_one("Payment", found, as_json=as_json, dry_run=dry_run)


def _facts(
    item: StandingInstruction, known: Sequence[StandingInstruction], on: date
) -> dict[str, str]:
    """Return what is shown of one of the *known* versions, as it stands on a day."""
    from trading.terms.standing_rules import state_of

    key = (item.party, item.asset, item.rail)
    versions = [other for other in known if (other.party, other.asset, other.rail) == key]
    return {
        "party": item.party,
        "asset": item.asset,
        "rail": str(item.rail),
        "destination": item.destination,
        "version": str(item.version),
        "state": str(state_of(item, versions, on)),
        "effective_from": item.effective_from.isoformat(),
        "call_back": _call_back_text(item),
        "entered_by": item.proposed_by,
        "approved_by": item.approved_by,
    }


def _call_back_text(item: StandingInstruction) -> str:
    said = item.call_back
    if said is None:
        return "needed" if item.needs_call_back else ""
    return f"{'confirmed' if said.confirmed else 'denied'} to {said.by} ({said.reference})"
