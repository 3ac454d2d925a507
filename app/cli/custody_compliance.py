"""``causeway custody compliance``: the queue, and what people decide about what lies in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

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
    on_database,
    one_of,
    read,
    run,
    show,
    show_one,
    write,
)
from app.cli.custody_explain import payout_facts
from app.cli.explain import Moment, Section, Story, events, tell
from app.cli.operators import Approver, ApproverKey, As, Credentials, Key, credentials
from kernel.clock import iso
from kernel.errors import BadInput, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from custody.compliance.model import AddressProof, Case, LegalHold
    from custody.compliance.screening import Rescreened
    from custody.compliance.sealing import TravelRuleRecord

compliance = typer.Typer(help="Screening, holds, the travel rule.", no_args_is_help=True)
legal_hold = typer.Typer(help="Orders of authorities on clients.", no_args_is_help=True)
travel_rule = typer.Typer(help="Who sends and who receives.", no_args_is_help=True)
prove_address = typer.Typer(help="Proof that an address is a client's own.", no_args_is_help=True)
compliance.add_typer(legal_hold, name="legal-hold")
compliance.add_typer(travel_rule, name="travel-rule")
compliance.add_typer(prove_address, name="prove-address")

CaseId = Annotated[
    UUID, typer.Argument(metavar="ID", help="Of the case, or of the deposit, payout, destination.")
]
PartyArgument = Annotated[str, typer.Argument(metavar="CLIENT", help="Code of the client.")]
SealingKeyFile = Annotated[
    Path, typer.Option("--sealing-key", metavar="FILE", help="32 bytes as 64 hexadecimal digits.")
]


@compliance.command()
def queue(
    *,
    state: Annotated[
        str | None, typer.Option(help="Only these; without it: open and held ones.")
    ] = None,
    party: Annotated[str | None, typer.Option(help="Only those of this client.")] = None,
    after: Annotated[UUID | None, typer.Option(help="Only those after this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """List what compliance waits for, or people have to decide, oldest first.

    Example: `causeway custody compliance queue --state held`
    """
    from custody.compliance.model import CaseState

    waiting = (CaseState.OPEN, CaseState.HELD)
    states = waiting if state is None else (one_of(CaseState, state, "state of a case"),)

    async def work(conn: AsyncConnection) -> list[dict[str, str]]:
        from custody.compliance.cases import list_cases

        money = await Money.load(conn)
        page = await list_cases(conn, states=states, party=party, after=after)
        return [_case(item, money) for item in page]

    found = read(work)
    columns = (
        *("id", "state", "subject", "subject_id", "party", "amount", "direction", "address"),
        *("reason", "by", "opened"),
    )
    show("Compliance", columns, [tuple(row.values()) for row in found], as_json=as_json)


@compliance.command("show")
def show_case(case_id: CaseId, *, as_json: AsJson = False) -> None:
    """Tell the life of a case: who was asked, what was answered, who decided and signed.

    Example: `causeway custody compliance show 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """
    tell(read(lambda conn: _story(conn, case_id)), as_json=as_json)


@compliance.command()
def hold(case_id: CaseId, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False) -> None:
    """Hold a deposit or a payout back; one person, at once.

    Example: `causeway custody compliance hold 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "a tip" --as ben
    --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.compliance import decisions, people
        from custody.compliance.cases import get_case
        from custody.errors import UnknownRow

        me, now = await who.person(conn), clock().now()
        try:
            case = await get_case(conn, case_id)
        except UnknownRow:
            case = await decisions.open_deposit_case(conn, case_id, now=now)
        signature = me.sign(people.case_bytes(people.HOLD_VERB, case, reason))
        held = await decisions.hold(
            conn, case.id, signatures={me.code: signature}, reason=reason, now=now
        )
        return _case(held, await Money.load(conn))

    show_one("Case", write(work), as_json=as_json)


@compliance.command()
def release(
    case_id: CaseId,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Let go what is held, as two operators say; a held deposit is credited. Both sign.

    Example: `causeway custody compliance release 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "source shown"
    --as ben --key ben.key --approver cleo --approver-key cleo.key`
    """
    both = (credentials(as_, key), credentials(approver, approver_key))

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.compliance import decisions, people
        from custody.compliance.cases import get_case

        case = await get_case(conn, case_id)
        payload = people.case_bytes(people.RELEASE_VERB, case, reason)
        done = await decisions.release(
            conn,
            case.id,
            signatures=await _signed(conn, both, payload),
            reason=reason,
            book=book,
            now=clock().now(),
        )
        return _case(done, await Money.load(conn))

    found = write(work, dry_run=dry_run)
    show_one("Case", found, as_json=as_json, dry_run=dry_run)


@compliance.command()
def refund(
    case_id: CaseId,
    to: Annotated[str, typer.Argument(metavar="ADDRESS", help="An allowed destination.")],
    *,
    source: Annotated[str, typer.Option("--from", help="The wallet that pays.")],
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Give a held deposit back, as two operators say: requests a payout, which others approve.

    Example: `causeway custody compliance refund 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80
    0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --from client-pool --reason "sent in error" --as ben --key ben.key
    --approver cleo --approver-key cleo.key`
    """
    both = (credentials(as_, key), credentials(approver, approver_key))

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.compliance import decisions, people
        from custody.compliance.cases import get_case

        case = await get_case(conn, case_id)
        payload = people.refund_bytes(case, reason, destination=to, wallet=source)
        payout = await decisions.refund(
            conn,
            case.id,
            destination=to,
            source_wallet=source,
            signatures=await _signed(conn, both, payload),
            reason=reason,
            book=book,
            now=clock().now(),
        )
        return payout_facts(payout, await Money.load(conn))

    found = write(work, dry_run=dry_run)
    show_one("Payout", found, as_json=as_json, dry_run=dry_run)


@compliance.command()
def rescreen(
    address_list: Annotated[Path, typer.Argument(metavar="LIST", help="The address list's file.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Ask about everything open by a list now; the worker does so by itself when its list changes.

    Example: `causeway custody compliance rescreen addresses.json`
    """
    text = _text(address_list)

    async def work(engine: AsyncEngine) -> Rescreened:
        from custody.compliance.address_list import AddressList
        from custody.compliance.screening import rescreen as verb

        return await verb(engine, AddressList.parse(text), now=clock().now())

    done = run(lambda: on_database(work))
    facts = {"asked": str(done.asked), "hits": str(done.hits), "unknown": str(done.unknown)}
    show_one("Re-screened" if done.due else "Asked before", facts, as_json=as_json)


# Legal holds.


@legal_hold.command("list")
def legal_hold_list(
    *,
    party: Annotated[str | None, typer.Option(help="Only those on this client.")] = None,
    after: Annotated[
        UUID | None, typer.Option(help="The last one of the page before: a page has 500.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List legal holds, standing and lifted, oldest first.

    Example: `causeway custody compliance legal-hold list`
    """

    async def work(conn: AsyncConnection) -> list[LegalHold]:
        from custody.compliance.cases import list_legal_holds

        parties = None if party is None else [party]
        return await list_legal_holds(conn, parties=parties, after=after)

    rows = [tuple(_legal_hold(item).values()) for item in read(work)]
    columns = ("id", "state", "party", "order", "reason", "placed_by", "placed", "lifted")
    show("Legal holds", columns, rows, as_json=as_json)


@legal_hold.command("place")
def legal_hold_place(
    party: PartyArgument,
    *,
    order: Annotated[str, typer.Option(help="The authority's reference; opaque.")],
    reason: Reason,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Stop everything of a client's that would leave or be let go; one person, at once.

    Example: `causeway custody compliance legal-hold place acme --order 7-Js-12/26 --reason "court order"
    --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> LegalHold:
        from custody.compliance import decisions, people

        me = await who.person(conn)
        payload = people.legal_hold_bytes(people.LEGAL_HOLD_VERB, party, order, reason)
        return await decisions.place_legal_hold(
            conn,
            party,
            order=order,
            signatures={me.code: me.sign(payload)},
            reason=reason,
            now=clock().now(),
        )

    show_one("Legal hold", _legal_hold(write(work)), as_json=as_json)


@legal_hold.command("lift")
def legal_hold_lift(
    hold_id: Annotated[UUID, typer.Argument(metavar="HOLD", help="Id of the legal hold.")],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    as_json: AsJson = False,
) -> None:
    """Lift a legal hold, as two operators say; both sign.

    Example: `causeway custody compliance legal-hold lift 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "withdrawn"
    --as ben --key ben.key --approver cleo --approver-key cleo.key`
    """
    both = (credentials(as_, key), credentials(approver, approver_key))

    async def work(conn: AsyncConnection) -> LegalHold:
        from custody.compliance import decisions, people
        from custody.compliance.cases import get_legal_hold

        found = await get_legal_hold(conn, hold_id)
        payload = people.lift_bytes(found, reason)
        signatures = await _signed(conn, both, payload)
        return await decisions.lift_legal_hold(
            conn, hold_id, signatures=signatures, reason=reason, now=clock().now()
        )

    show_one("Legal hold", _legal_hold(write(work)), as_json=as_json)


# Travel rule.


@travel_rule.command("record")
def travel_rule_record(
    subject_id: Annotated[UUID, typer.Argument(metavar="ID", help="Of the deposit or payout.")],
    file: Annotated[Path, typer.Argument(help="The record, JSON in the shape of IVMS101.")],
    *,
    sealing_key: SealingKeyFile,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Seal and keep who sends and who receives; nothing of it is readable in the database.

    Example: `causeway custody compliance travel-rule record 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 record.json
    --sealing-key sealing.key --as dan --key dan.key`
    """
    who, sealing = credentials(as_, key), _sealing_key(sealing_key)
    document = _document(file)

    async def work(conn: AsyncConnection) -> TravelRuleRecord:
        from custody.compliance.sealing import SealingKey
        from custody.compliance.travel_rule_records import write_record

        me = await who.person(conn)
        return await write_record(
            conn, subject_id, document, key=SealingKey(sealing), by=me.code, now=clock().now()
        )

    show_one("Travel-rule record", _record(write(work)), as_json=as_json)


@travel_rule.command("show")
def travel_rule_show(
    subject_id: Annotated[UUID, typer.Argument(metavar="ID", help="Of the deposit or payout.")],
    *,
    sealing_key: Annotated[
        Path | None, typer.Option("--sealing-key", metavar="FILE", help="Opens the newest record.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the records about a deposit or payout; with the key, open the newest.

    Example: `causeway custody compliance travel-rule show 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """
    import json

    secret = None if sealing_key is None else _sealing_key(sealing_key)

    async def work(conn: AsyncConnection) -> list[dict[str, str]]:
        from custody.compliance.sealing import SealingKey
        from custody.compliance.travel_rule_records import list_records

        records = await list_records(conn, subject_id)
        if not records:
            raise Refused(f"there is no travel-rule record about {subject_id}")
        rows = [_record(item) for item in records]
        if secret is not None and records:
            opened = records[-1].opened(SealingKey(secret))
            rows[-1]["content"] = json.dumps(opened, ensure_ascii=False)
        return rows

    found = read(work)
    columns = ("id", "number", "direction", "missing", "by", "recorded", "key", "content")
    show("Travel-rule records", columns, [tuple(row.values()) for row in found], as_json=as_json)


# Proofs of addresses.


@prove_address.command("ask")
def prove_address_ask(
    party: PartyArgument,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="With its EIP-55 checksum.")],
    *,
    chain: Chain = CHAIN_DEFAULT,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Make the message that the holder of a self-hosted address has to sign within a day.

    Example: `causeway custody compliance prove-address ask acme 0x70997970C51812dc3A010C7d01b50e0d17dc79C8
    --as dan --key dan.key`
    """
    import secrets

    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> AddressProof:
        from custody.compliance.ownership import NONCE_BYTES, challenge

        me, nonce = await who.person(conn), secrets.token_bytes(NONCE_BYTES)
        return await challenge(
            conn, party, chain, address, nonce=nonce, by=me.code, now=clock().now()
        )

    show_one("Proof", _proof(write(work)), as_json=as_json)


@prove_address.command("confirm")
def prove_address_confirm(
    proof_id: Annotated[UUID, typer.Argument(metavar="PROOF", help="Id of the proof.")],
    signature: Annotated[str, typer.Argument(help="65 bytes in hexadecimal (EIP-191).")],
    *,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Take the signed message: it has to be the key of that address that signed.

    Example: `causeway custody compliance prove-address confirm 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 0x1b00
    --as dan --key dan.key`
    """
    who = credentials(as_, key)
    try:
        raw = bytes.fromhex(signature.removeprefix("0x"))
    except ValueError as error:
        raise BadInput("the signature is not hexadecimal") from error

    async def work(conn: AsyncConnection) -> AddressProof:
        from custody.compliance.ownership import prove

        me = await who.person(conn)
        return await prove(conn, proof_id, raw, by=me.code, now=clock().now())

    show_one("Proof", _proof(write(work)), as_json=as_json)


@prove_address.command("list")
def prove_address_list(party: PartyArgument, *, as_json: AsJson = False) -> None:
    """List what a client was asked to prove, and has proven.

    Example: `causeway custody compliance prove-address list acme`
    """

    async def work(conn: AsyncConnection) -> list[AddressProof]:
        from custody.compliance.ownership import list_proofs

        return await list_proofs(conn, party)

    rows = [tuple(_proof(item).values()) for item in read(work)]
    columns = ("id", "state", "party", "chain", "address", "message", "expires", "proven")
    show(f"Proofs of {party}", columns, rows, as_json=as_json)


async def _signed(
    conn: AsyncConnection, both: Sequence[Credentials], payload: bytes
) -> dict[str, bytes]:
    people = [await one.person(conn) for one in both]
    return {person.code: person.sign(payload) for person in people}


async def _story(conn: AsyncConnection, case_id: UUID) -> Story:
    from custody.compliance.cases import get_case, list_decisions, list_history_of, list_opinions

    case, money = await get_case(conn, case_id), await Money.load(conn)
    opinions, decisions = await list_opinions(conn, case.id), await list_decisions(conn, case.id)
    answers = [
        Moment(
            one.at,
            "answer",
            f"{one.provider} version {one.list_version}",
            f"{one.verdict}: {one.reason}" if one.reason else str(one.verdict),
        )
        for one in opinions
    ]
    return Story(
        f"Case {case.id}",
        _case(case, money),
        [*answers, *events(await list_history_of(conn, case))],
        {
            "decisions": Section(
                ("at", "verb", "operators", "reason", "signatures"),
                [
                    (
                        *(iso(one.at), one.verb, ", ".join(one.operators), one.reason),
                        ", ".join(signature.hex() for signature in one.signatures),
                    )
                    for one in decisions
                ],
            )
        },
    )


def _case(item: Case, money: Money) -> dict[str, str]:
    return {
        "id": str(item.id),
        "state": str(item.state),
        "subject": str(item.subject),
        "subject_id": str(item.subject_id),
        "party": item.party or "",
        "amount": money.text(item.amount, item.asset) if item.asset else "",
        "direction": str(item.direction),
        "address": item.address,
        "reason": item.reason,
        "by": f"{item.provider} {item.list_version}".strip(),
        "opened": iso(item.opened_at),
    }


def _legal_hold(item: LegalHold) -> dict[str, str]:
    return {
        "id": str(item.id),
        "state": str(item.state),
        "party": item.party,
        "order": item.order,
        "reason": item.reason,
        "placed_by": item.placed_by,
        "placed": iso(item.placed_at),
        "lifted": "" if item.lifted_at is None else iso(item.lifted_at),
    }


def _record(item: TravelRuleRecord) -> dict[str, str]:
    return {
        "id": str(item.id),
        "number": str(item.number),
        "direction": str(item.direction),
        "missing": ", ".join(item.missing),
        "by": item.recorded_by,
        "recorded": iso(item.recorded_at),
        "key": item.key_id,
        "content": "",
    }


def _proof(item: AddressProof) -> dict[str, str]:
    return {
        "id": str(item.id),
        "state": str(item.state),
        "party": item.party,
        "chain": item.chain,
        "address": item.address,
        "message": item.message,
        "expires": iso(item.expires_at),
        "proven": "" if item.proven_at is None else iso(item.proven_at),
    }


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error


def _document(path: Path) -> dict[str, Any]:
    import json

    try:
        found = json.loads(_text(path))
    except ValueError as error:
        raise BadInput(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path} is not a JSON object")
    return found


def _sealing_key(path: Path) -> bytes:
    try:
        return bytes.fromhex(_text(path).strip())
    except ValueError as error:
        raise BadInput(f"{path} does not hold hexadecimal digits") from error
