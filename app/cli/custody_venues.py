"""``causeway custody venue-address`` and ``venue-transfer``: own coins to venues and back.

Nothing here speaks to a venue: requests and decisions are rows, and the worker of the account, which
has its credentials, sends and follows them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    CHAIN_DEFAULT,
    Amount,
    AsJson,
    Book,
    Chain,
    DryRun,
    Money,
    Reason,
    clock,
    parse_time,
    read,
    show,
    show_one,
    write,
)
from app.cli.custody_explain import payout_facts
from app.cli.explain import Section, Story, events, postings, tell
from app.cli.operators import Approver, ApproverKey, As, Key, credentials
from kernel.clock import iso
from kernel.errors import Refused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from custody.venues.model import Place, RegisteredAddress, VenueDeposit, VenueWithdrawal

addresses = typer.Typer(help="Where venues take our coins.", no_args_is_help=True)
transfers = typer.Typer(help="Own coins to venues and back.", no_args_is_help=True)

PlaceText = Annotated[str, typer.Argument(metavar="VENUE/ACCOUNT", help="Our account there.")]
OnlyPlace = Annotated[
    str | None, typer.Option("--place", metavar="VENUE/ACCOUNT", help="Only those of this one.")
]
AddressId = Annotated[UUID, typer.Argument(metavar="ADDRESS", help="Id of the registration.")]
TransferId = Annotated[UUID, typer.Argument(metavar="TRANSFER", help="Its id.")]
Reference = Annotated[str, typer.Option("--ref", help="Your own; one transfer for each.")]
Lapses = Annotated[
    str | None, typer.Option("--expires", help="When it lapses; without it, in 7 days.")
]


@addresses.command("list")
def address_list(*, place: OnlyPlace = None, as_json: AsJson = False) -> None:
    """List where venues take our coins, as it is registered, and when they last confirmed it.

    Example: `causeway custody venue-address list --place binance/main`
    """

    async def work(conn: AsyncConnection) -> list[RegisteredAddress]:
        from custody.venues.explain import list_addresses

        return await list_addresses(conn, place=_place(place))

    rows = [_address(item) for item in read(work)]
    columns = (
        *("id", "state", "place", "asset", "network", "chain", "address"),
        *("proposed_by", "approved_by", "verified", "reason"),
    )
    show("Venue addresses", columns, [tuple(row.values()) for row in rows], as_json=as_json)


@addresses.command("register")
def address_register(
    place: PlaceText,
    asset: str,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="As the venue names it.")],
    *,
    network: Annotated[str, typer.Option(help="The venue's own word for the chain.")],
    tag: Annotated[str, typer.Option(help="A tag that coins need there.")] = "",
    cooling_off: Annotated[
        int, typer.Option("--cooling-off", min=0, help="Hours from approval to first use.")
    ] = 0,
    similar: Annotated[
        list[str] | None,
        typer.Option("--similar-to", help="A known address like it, that you compared."),
    ] = None,
    chain: Chain = CHAIN_DEFAULT,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Propose where a venue takes an asset for our account: your key signs it; a second one approves.

    Before each use the venue's own answer has to be the same: a changed address is never paid to.

    Example: `causeway custody venue-address register binance/main ETH 0x70997970C51812dc3A010C7d01b50e0d17dc79C8
    --network ETH --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> RegisteredAddress:
        from custody.allow_list import destination_bytes
        from custody.venues.addresses import address_bytes, draft_address, propose_address
        from custody.venues.model import Place

        me = await who.person(conn)
        given: dict[str, Any] = {
            "place": Place.parse(place),
            "asset": asset,
            "network": network,
            "chain": chain,
            "address": address,
            "tag": tag,
            "by": me.code,
            "now": clock().now(),
            "cooling_off": timedelta(hours=cooling_off),
            "acknowledged": similar or [],
        }
        draft = await draft_address(conn, **given)
        there = draft.destination
        return await propose_address(
            conn,
            signature=me.sign(address_bytes(draft.address)),
            destination_signature=me.sign(destination_bytes(there)) if there else b"",
            **given,
        )

    found = _address(write(work, dry_run=dry_run))
    show_one("Venue address", found, as_json=as_json, dry_run=dry_run)


@addresses.command("approve")
def address_approve(
    address_id: AddressId, *, as_: As, key: Key, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Let coins go to a proposed address: your key signs account, asset, network, chain and address.

    Example: `causeway custody venue-address approve 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> RegisteredAddress:
        from custody.allow_list import destination_bytes, get_destination
        from custody.venues.addresses import address_bytes, approve_address
        from custody.venues.explain import get_address

        me = await who.person(conn)
        pending = await get_address(conn, address_id)
        there = await get_destination(conn, pending.destination_id)
        return await approve_address(
            conn,
            address_id,
            by=me.code,
            signature=me.sign(address_bytes(pending)),
            destination_signature=me.sign(destination_bytes(there)),
            now=clock().now(),
        )

    found = _address(write(work, dry_run=dry_run))
    show_one("Venue address", found, as_json=as_json, dry_run=dry_run)


@addresses.command("reject")
def address_reject(
    address_id: AddressId, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False
) -> None:
    """Refuse a proposed address.

    Example: `causeway custody venue-address reject 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "not ours"
    --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> RegisteredAddress:
        from custody.venues.addresses import reject_address

        me = await who.person(conn)
        now = clock().now()
        return await reject_address(conn, address_id, by=me.code, reason=reason, now=now)

    show_one("Venue address", _address(write(work)), as_json=as_json)


@addresses.command("revoke")
def address_revoke(
    address_id: AddressId, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False
) -> None:
    """Take a registered address back, at once and by one person.

    Example: `causeway custody venue-address revoke 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "account closed"
    --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> RegisteredAddress:
        from custody.venues.addresses import revoke_address

        me = await who.person(conn)
        now = clock().now()
        return await revoke_address(conn, address_id, by=me.code, reason=reason, now=now)

    show_one("Venue address", _address(write(work)), as_json=as_json)


@transfers.command("list")
def transfer_list(
    *, place: OnlyPlace = None, book: Book = BOOK_DEFAULT, as_json: AsJson = False
) -> None:
    """List transfers to and from venues, and what those that are open wait for.

    Example: `causeway custody venue-transfer list --place binance/main --json`
    """

    async def work(conn: AsyncConnection) -> list[dict[str, str]]:
        from custody.venues.explain import list_transfers

        money = await Money.load(conn)
        found = await list_transfers(conn, book=book, place=_place(place))
        return [_transfer(item, money) for item in found]

    columns = ("id", "state", "from", "to", "amount", "venue_ref", "waiting_for", "late", "since")
    rows = [tuple(row[name] for name in columns) for row in read(work)]
    show("Venue transfers", columns, rows, as_json=as_json, right=("amount",))


@transfers.command("to")
def transfer_to(
    place: PlaceText,
    amount: Annotated[str, typer.Argument(help='Decimal and asset: "1.5 ETH".')],
    *,
    source: Annotated[str, typer.Option("--from", help="The wallet that pays.")],
    reference: Reference,
    expires: Lapses = None,
    reason: Reason = "",
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Request a payout to our account at a venue, at the address that is registered there.

    It is approved, signed and sent like any payout, once the venue has confirmed the address.

    Example: `causeway custody venue-transfer to binance/main "1 ETH" --from house-hot --ref t-17 --as dan
    --key dan.key`
    """
    asked, who = Amount.parse(amount), credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.payout_model import PayoutRequest
        from custody.payouts import request_payout
        from custody.venues.addresses import find_route
        from custody.venues.model import Place
        from registry.model import Role

        money, there = await Money.load(conn), Place.parse(place)
        me = await who.person(conn, Role.OPERATIONS, Role.TREASURER, Role.DEALER)
        route = await find_route(conn, there, source, asked.asset)
        request = PayoutRequest(
            client_ref=reference,
            claim=there.claim,
            source_wallet=source,
            asset=asked.asset,
            amount=money.units(asked),
            destination=route.address,
            requested_by=me.code,
            reason=reason,
            expires_at=parse_time(expires),
        )
        made = await request_payout(conn, request, book=book, now=clock().now())
        return payout_facts(made, money)

    found = write(work, dry_run=dry_run)
    show_one("Payout", found, as_json=as_json, dry_run=dry_run)
    _exit_if_rejected(found)


@transfers.command("from")
def transfer_from(
    place: PlaceText,
    amount: Annotated[str, typer.Argument(help='Decimal and asset: "1.5 ETH".')],
    *,
    wallet: Annotated[str, typer.Option("--to", help="The wallet that it comes to.")],
    fee_max: Annotated[str, typer.Option("--fee-max", help="The most that the venue may keep.")],
    address: Annotated[
        str | None, typer.Option(help="Which hot address of the wallet; else its first.")
    ] = None,
    reference: Reference,
    expires: Lapses = None,
    reason: Reason = "",
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Request a withdrawal from a venue to a hot address of ours: other operators have to approve it.

    Example: `causeway custody venue-transfer from binance/main "1 ETH" --to house-hot --fee-max "0.001 ETH"
    --ref f-17 --as dan --key dan.key`
    """
    asked, fee, who = Amount.parse(amount), Amount.parse(fee_max), credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.venues.model import Place, WithdrawalRequest
        from custody.venues.withdrawals import request_withdrawal
        from registry.model import Role

        if fee.asset != asked.asset:
            raise Refused(f"the venue keeps its fee in {asked.asset}, not in {fee.asset}")
        money = await Money.load(conn)
        me = await who.person(conn, Role.OPERATIONS, Role.TREASURER, Role.DEALER)
        request = WithdrawalRequest(
            client_ref=reference,
            place=Place.parse(place),
            wallet=wallet,
            asset=asked.asset,
            amount=money.units(asked),
            fee_max=money.units(fee),
            address=address,
            requested_by=me.code,
            reason=reason,
            expires_at=parse_time(expires),
        )
        now = clock().now()
        made = await request_withdrawal(conn, request, offered=None, book=book, now=now)
        return _transfer(made, money)

    found = write(work, dry_run=dry_run)
    show_one("Venue withdrawal", found, as_json=as_json, dry_run=dry_run)
    _exit_if_rejected(found)


@transfers.command("approve")
def transfer_approve(
    transfer_id: TransferId, *, as_: As, key: Key, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Approve a withdrawal from a venue: your key signs all that the venue will be asked.

    A transfer to a venue is a payout: `causeway custody approve`.

    Example: `causeway custody venue-transfer approve 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.venues.explain import get_withdrawal
        from custody.venues.withdrawals import approval_bytes, approve_withdrawal

        me = await who.person(conn)
        pending = await get_withdrawal(conn, transfer_id)
        signature = me.sign(approval_bytes(pending))
        now = clock().now()
        done = await approve_withdrawal(conn, transfer_id, by=me.code, signature=signature, now=now)
        return _transfer(done, await Money.load(conn))

    found = write(work, dry_run=dry_run)
    show_one("Venue withdrawal", found, as_json=as_json, dry_run=dry_run)


@transfers.command("reject")
def transfer_reject(
    transfer_id: TransferId,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Say no to a withdrawal from a venue; what it held there is free again.

    Example: `causeway custody venue-transfer reject 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "too much"
    --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.venues.withdrawals import reject_withdrawal

        me, now = await who.person(conn), clock().now()
        done = await reject_withdrawal(conn, transfer_id, by=me.code, reason=reason, now=now)
        return _transfer(done, await Money.load(conn))

    found = write(work, dry_run=dry_run)
    show_one("Venue withdrawal", found, as_json=as_json, dry_run=dry_run)


@transfers.command("cancel")
def transfer_cancel(
    transfer_id: TransferId,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take a withdrawal back before it is sent to the venue.

    Example: `causeway custody venue-transfer cancel 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "not needed"
    --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.venues.withdrawals import cancel_withdrawal

        me, now = await who.person(conn), clock().now()
        done = await cancel_withdrawal(conn, transfer_id, by=me.code, reason=reason, now=now)
        return _transfer(done, await Money.load(conn))

    found = write(work, dry_run=dry_run)
    show_one("Venue withdrawal", found, as_json=as_json, dry_run=dry_run)


@transfers.command("decide")
def transfer_decide(
    transfer_id: TransferId,
    *,
    venue_ref: Annotated[
        str | None,
        typer.Option("--venue-ref", help="The venue's id of it; without it: the venue has none."),
    ] = None,
    sent: Annotated[
        str | None,
        typer.Option(help='What the venue really sent ("1.5 ETH"), if not what was asked for.'),
    ] = None,
    fee: Annotated[str | None, typer.Option(help="With --sent: what the venue kept.")] = None,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Say what became of an escalated withdrawal, as two people who have looked at the venue.

    Example: `causeway custody venue-transfer decide 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --venue-ref b6ae22b3
    --reason "the venue's statement" --as ben --key ben.key --approver cleo --approver-key cleo.key`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.venues.decisions import decide_escalated, decision_bytes
        from custody.venues.explain import get_withdrawal

        people = [await who.person(conn) for who in (first, second)]
        money, item = await Money.load(conn), await get_withdrawal(conn, transfer_id)
        if (sent is None) != (fee is None):
            raise Refused("what the venue sent and what it kept are said together")
        figures = [Amount.parse(text) for text in (sent, fee) if text is not None]
        if {figure.asset for figure in figures} - {item.asset}:
            raise Refused(f"the withdrawal is of {item.asset}")
        moved = (money.units(figures[0]), money.units(figures[1])) if figures else None
        payload = decision_bytes(item, venue_ref, reason, moved)
        signed = [(person.code, person.sign(payload)) for person in people]
        done = await decide_escalated(
            conn,
            transfer_id,
            venue_ref=venue_ref,
            reason=reason,
            first=signed[0],
            second=signed[1],
            now=clock().now(),
            moved=moved,
        )
        return _transfer(done, money)

    found = write(work, dry_run=dry_run)
    show_one("Venue withdrawal", found, as_json=as_json, dry_run=dry_run)


@transfers.command("write-off")
def transfer_write_off(
    transfer_id: TransferId,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give up, as two people, what a venue has sent and what never came: it is a loss.

    Example: `causeway custody venue-transfer write-off 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "paid to a
    stranger" --as ben --key ben.key --approver cleo --approver-key cleo.key`
    """
    both = credentials(as_, key), credentials(approver, approver_key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.venues.decisions import write_off, write_off_bytes
        from custody.venues.explain import get_withdrawal

        payload = write_off_bytes(await get_withdrawal(conn, transfer_id), reason)
        first, second = [
            (person.code, person.sign(payload)) for person in [await w.person(conn) for w in both]
        ]
        done = await write_off(
            conn, transfer_id, reason=reason, first=first, second=second, now=clock().now()
        )
        return _transfer(done, await Money.load(conn))

    found = write(work, dry_run=dry_run)
    show_one("Venue withdrawal", found, as_json=as_json, dry_run=dry_run)


@transfers.command("decide-credit")
def transfer_decide_credit(
    transfer_id: TransferId,
    credited: Annotated[str, typer.Argument(help='What the venue credited: "0.5 ETH".')],
    *,
    venue_ref: Annotated[
        str, typer.Option("--venue-ref", help="The venue's id of the credit, or of its statement.")
    ],
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Say, as two people, what a venue credited of coins that are final on the chain; the rest is a loss.

    Example: `causeway custody venue-transfer decide-credit 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 "0.5 ETH"
    --venue-ref 4711 --reason "its statement" --as ben --key ben.key --approver cleo --approver-key cleo.key`
    """
    both, asked = (
        (credentials(as_, key), credentials(approver, approver_key)),
        Amount.parse(credited),
    )

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.venues.decisions import decide_deposit, deposit_decision_bytes
        from custody.venues.explain import get_deposit

        money, item = await Money.load(conn), await get_deposit(conn, transfer_id)
        if asked.asset != item.asset:
            raise Refused(f"the transfer is of {item.asset}, not of {asked.asset}")
        units = money.units(asked)
        payload = deposit_decision_bytes(item, venue_ref, units, reason)
        first, second = [
            (person.code, person.sign(payload)) for person in [await w.person(conn) for w in both]
        ]
        done = await decide_deposit(
            conn,
            transfer_id,
            venue_ref=venue_ref,
            amount=units,
            reason=reason,
            first=first,
            second=second,
            now=clock().now(),
        )
        return _transfer(done, money)

    found = write(work, dry_run=dry_run)
    show_one("Venue deposit", found, as_json=as_json, dry_run=dry_run)


@transfers.command("explain")
def transfer_explain(transfer_id: TransferId, *, as_json: AsJson = False) -> None:
    """Tell the life of a transfer: what happened, what was posted, what carries it, who approved it.

    Example: `causeway custody venue-transfer explain 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """

    async def work(conn: AsyncConnection) -> Story:
        from custody.venues.explain import explain_transfer
        from ledger.queries import list_transfers

        money, found = await Money.load(conn), await explain_transfer(conn, transfer_id)
        item = found.transfer
        posted = await list_transfers(conn, item.book, correlation=item.id)
        carried = [] if found.payout is None else [found.payout]
        for payout in carried:
            posted += await list_transfers(conn, item.book, correlation=payout.id)
        carriers = [tuple(payout_facts(payout, money).values()) for payout in carried]
        names = tuple(payout_facts(carried[0], money)) if carried else ("id",)
        return Story(
            title=f"Transfer {item.id}",
            facts=_transfer(item, money),
            timeline=[*events(found.events), *postings(posted, money)],
            sections={
                "payout": Section(names, carriers),
                "approvals": Section(("operator",), [(code,) for code in found.approvers]),
            },
        )

    tell(read(work), as_json=as_json)


def _place(text: str | None) -> Place | None:
    from custody.venues.model import Place

    return None if text is None else Place.parse(text)


def _exit_if_rejected(found: dict[str, str]) -> None:
    if found["state"] == "rejected":
        raise typer.Exit(1)


def _address(item: RegisteredAddress) -> dict[str, str]:
    return {
        "id": str(item.id),
        "state": str(item.state),
        "place": str(item.place),
        "asset": item.asset,
        "network": item.network,
        "chain": item.chain,
        "address": item.address,
        "proposed_by": item.proposed_by,
        "approved_by": item.approved_by or "",
        "verified": "" if item.verified_at is None else iso(item.verified_at),
        "reason": item.reason,
    }


def _transfer(item: VenueDeposit | VenueWithdrawal, money: Money) -> dict[str, str]:
    from custody.venues.model import VenueWithdrawal

    facts = {
        "id": str(item.id),
        "state": str(item.state),
        "amount": money.text(item.amount, item.asset),
        "venue_ref": item.venue_ref or "",
        "waiting_for": item.waiting_for,
        "late": "" if item.late_since is None else iso(item.late_since),
    }
    if not isinstance(item, VenueWithdrawal):
        ends = {"from": item.source, "to": str(item.place), "since": iso(item.created_at)}
        return {**facts, **ends, "payout": str(item.payout_id)}
    return {
        **facts,
        "from": str(item.place),
        "to": item.wallet,
        "since": iso(item.requested_at),
        "reference": item.client_ref,
        "address": item.address,
        "network": item.network,
        "fee_max": money.text(item.fee_max, item.asset),
        "fee": "" if item.fee is None else money.text(item.fee, item.asset),
        "transaction": item.tx_id or "",
        "requested_by": item.requested_by,
        "expires": iso(item.expires_at),
    }
