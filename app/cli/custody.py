"""``causeway custody``: addresses, what arrives at them, and whether the chain agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli import (
    custody_chain,
    custody_cold,
    custody_compliance,
    custody_deposits,
    custody_freezes,
    custody_holds,
    custody_keys,
    custody_payouts,
    custody_policy,
    custody_rebalance,
    custody_reconcile,
    custody_rescue,
    custody_rules,
    custody_signer,
    custody_venues,
)
from app.cli.common import (
    BOOK_DEFAULT,
    CHAIN_DEFAULT,
    AsJson,
    Book,
    Chain,
    DryRun,
    Money,
    Reason,
    clock,
    one_of,
    read,
    show,
    show_one,
    write,
)
from app.cli.custody_explain import explain_object
from app.cli.explain import tell
from app.cli.operators import (
    Approver,
    ApproverKey,
    As,
    Key,
    credentials,
    people_of,
    signatures_of,
)
from kernel.clock import iso

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from custody.model import Address
    from custody.restore.returns import Returned

app = typer.Typer(help="Addresses, deposits, payouts, reconciliation.", no_args_is_help=True)
address = typer.Typer(help="Addresses of our wallets.", no_args_is_help=True)
app.add_typer(address, name="address")
app.add_typer(custody_chain.chain_app, name="chain")
app.add_typer(custody_compliance.compliance, name="compliance")
app.add_typer(custody_cold.cold, name="cold")
app.add_typer(custody_keys.keys, name="keys")
app.add_typer(custody_rules.destinations, name="destinations")
app.add_typer(custody_policy.policy, name="policy")
app.add_typer(custody_signer.signer_app, name="signer")
app.add_typer(custody_venues.addresses, name="venue-address")
app.add_typer(custody_venues.transfers, name="venue-transfer")
custody_freezes.register(app)
custody_deposits.register(app)
custody_payouts.register(app)
custody_rebalance.register(app)
custody_reconcile.register(app)
custody_rescue.register(app)
custody_holds.register(app)

State = Annotated[str | None, typer.Option("--state", help="Only those in this state.")]
PartyOption = Annotated[str | None, typer.Option("--party", help="Only those of this party.")]


@address.command("list")
def address_list(
    *,
    chain: Chain = CHAIN_DEFAULT,
    wallet: Annotated[str | None, typer.Option(help="Only addresses of this wallet.")] = None,
    skipped: Annotated[
        bool, typer.Option("--skipped", help="Those that a restore skipped, which are nobody's.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List every address that was handed out on a chain.

    Example: `causeway custody address list --wallet client-pool`
    """

    async def work(conn: AsyncConnection) -> list[Address]:
        from custody.addresses import list_addresses
        from custody.model import AddressPurpose
        from registry.queries import get_chain, get_wallet

        await get_chain(conn, chain)
        if wallet is not None:
            await get_wallet(conn, wallet)
        found = await list_addresses(conn, chain, wallet=wallet)
        return [item for item in found if (item.purpose is AddressPurpose.SKIPPED) == skipped]

    columns = ("wallet", "path", "address", "purpose", "party", "reference", "assigned")
    show(
        f"Addresses on {chain}",
        columns,
        [tuple(_address(item).values()) for item in read(work)],
        as_json=as_json,
    )


@address.command("descriptors")
def address_descriptors(
    *,
    chain: Chain = "bitcoin",
    wallet: Annotated[str | None, typer.Option(help="Only those of this wallet.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the output descriptors of Bitcoin wallets: what your own node or wallet watches with.

    Branch 0 is given to others, branch 1 is for the wallet's own use. Nobody can spend with them.

    Example: `causeway custody address descriptors --wallet btc-pool`
    """

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from custody.addresses import list_descriptors
        from registry.queries import get_wallet

        if wallet is not None:
            await get_wallet(conn, wallet)
        return [
            (item.wallet, str(item.branch), str(item.handed_out), item.descriptor)
            for item in await list_descriptors(conn, chain, wallet=wallet)
        ]

    columns = ("wallet", "branch", "handed out", "descriptor")
    show(f"Descriptors on {chain}", columns, read(work), as_json=as_json, right=("handed out",))


@address.command("assign")
def address_assign(
    wallet: str,
    *,
    purpose: Annotated[str, typer.Option(help="deposit, settlement, hot or change.")] = "deposit",
    party: Annotated[str | None, typer.Option(help="Who pays in there.")] = None,
    reference: Annotated[str, typer.Option(help="What it is for; opaque.")] = "",
    asset: Annotated[
        str | None, typer.Option(help="What is paid in there (evm:USDT); one for each client.")
    ] = None,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Hand out a wallet's next address, derived by two libraries that must agree.

    Example: `causeway custody address assign client-pool --party acme --as dan --key dan.key`
    """
    from custody.model import AddressPurpose

    who = credentials(as_, key)
    wanted = one_of(AddressPurpose, purpose, "purpose of an address")

    async def work(conn: AsyncConnection) -> Address:
        from custody.addresses import assign_address
        from registry.model import Role

        me = await who.person(conn, Role.OPERATIONS, Role.TREASURER, Role.ADMIN)
        return await assign_address(
            conn,
            wallet,
            purpose=wanted,
            party=party,
            reference=reference,
            chain_asset=asset,
            now=clock().now(),
            by=me.code,
        )

    found = write(work, dry_run=dry_run)
    show_one("Address", _address(found), as_json=as_json, dry_run=dry_run)


@address.command("give-back")
def address_give_back(
    wallet: str,
    text: Annotated[
        str | None, typer.Argument(metavar="[ADDRESS]", help="As the client shows it.")
    ] = None,
    *,
    index: Annotated[
        int | None, typer.Option(help="Its index, where the address is not found by its text.")
    ] = None,
    purpose: Annotated[str, typer.Option(help="deposit or settlement.")] = "deposit",
    party: Annotated[str, typer.Option(help="Whose it was: who pays in there.")],
    reference: Annotated[str, typer.Option(help="What it is for; opaque.")] = "",
    asset: Annotated[str | None, typer.Option(help="What is paid in there (evm:USDT).")] = None,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    book: Book = BOOK_DEFAULT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give an address back that a restore of the database skipped, to whom it was; two people sign.

    What was paid in there meanwhile is credited to them, like any other deposit.

    Example: `causeway custody address give-back client-pool 0x5AEDA56215b167893e80B4fE645BA6d5Bab767DE --party
    acme --reason "the client's letter shows it" --as ada --key ada.key --approver ben --approver-key ben.key`
    """
    from custody.model import AddressPurpose

    both = credentials(as_, key), credentials(approver, approver_key)
    wanted = one_of(AddressPurpose, purpose, "purpose of an address")

    async def work(conn: AsyncConnection) -> Returned:
        from custody.restore.returns import Return, find_skipped, give_back, return_bytes
        from registry.queries import get_wallet

        people = await people_of(conn, both)
        found, number = await find_skipped(conn, wallet, text=text, index=index)
        said = Return(
            chain=(await get_wallet(conn, wallet)).chain,
            wallet=wallet,
            address=found,
            index=number,
            party=party,
            purpose=wanted,
            reference=reference,
            chain_asset=asset,
            reason=reason,
        )
        signatures = signatures_of(people, return_bytes(said))
        return await give_back(conn, said, signatures=signatures, book=book, now=clock().now())

    done = write(work, dry_run=dry_run)
    facts = {**_address(done.address), "arrivals": str(done.arrivals)}
    show_one("Address", facts, as_json=as_json, dry_run=dry_run)


def _address(item: Address) -> dict[str, str]:
    return {
        "wallet": item.wallet,
        "path": f"{item.branch}/{item.index}",
        "address": item.address,
        "purpose": str(item.purpose),
        "party": item.party or "",
        "reference": item.reference,
        "assigned": iso(item.assigned_at),
    }


@app.command()
def deposits(
    *,
    state: State = None,
    party: PartyOption = None,
    chain: Annotated[str | None, typer.Option(help="Only those on this chain.")] = None,
    after: Annotated[UUID | None, typer.Option(help="Only those after this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """List deposits in the order in which they were first seen, a page at a time.

    Example: `causeway custody deposits --party acme --state credited`
    """
    from custody.deposit_model import DepositState

    wanted = None if state is None else one_of(DepositState, state, "state of a deposit")

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from custody.deposits import list_deposits

        money = await Money.load(conn)
        page = await list_deposits(conn, chain=chain, state=wanted, party=party, after=after)
        return [
            (
                str(item.id),
                str(item.state),
                item.party or "",
                money.text(item.amount, item.asset),
                item.wallet,
                item.tx_hash,
                str(item.height),
                str(item.epoch),
                iso(item.first_seen_at),
            )
            for item in page
        ]

    columns = ("id", "state", "party", "amount", "wallet", "transaction", "height", "epoch", "seen")
    show("Deposits", columns, read(work), as_json=as_json, right=("amount", "height", "epoch"))


@app.command()
def receipts(
    *,
    state: State = None,
    party: PartyOption = None,
    chain: Annotated[str | None, typer.Option(help="Only those on this chain.")] = None,
    after: Annotated[UUID | None, typer.Option(help="Only those after this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """List what arrived at settlement addresses, and what it was matched to.

    Example: `causeway custody receipts --state final`
    """
    from custody.deposit_model import ReceiptState

    wanted = None if state is None else one_of(ReceiptState, state, "state of a receipt")

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from custody.receipts import list_receipts

        money = await Money.load(conn)
        page = await list_receipts(conn, chain=chain, state=wanted, party=party, after=after)
        return [
            (
                str(item.id),
                str(item.state),
                item.party or "",
                money.text(item.amount, item.asset),
                item.wallet,
                item.tx_hash,
                item.matched_to,
                iso(item.first_seen_at),
            )
            for item in page
        ]

    columns = ("id", "state", "party", "amount", "wallet", "transaction", "matched to", "seen")
    show("Receipts", columns, read(work), as_json=as_json, right=("amount",))


@app.command()
def explain(object_id: UUID, *, book: Book = BOOK_DEFAULT, as_json: AsJson = False) -> None:
    """Tell the life of a deposit, a receipt or a payout: states, postings, approvals, evidence.

    Example: `causeway custody explain 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """
    tell(read(lambda conn: explain_object(conn, object_id, book=book)), as_json=as_json)
