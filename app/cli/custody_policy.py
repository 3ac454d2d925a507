"""``causeway custody policy``: the rules that decide about payouts, explained and tried before use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    CHAIN_DEFAULT,
    Amount,
    AsJson,
    Book,
    Chain,
    Money,
    clock,
    emit,
    parse_time,
    read,
    show,
    show_one,
    write,
)
from app.cli.custody_policy_file import parse_policy, read_policy
from app.cli.operators import As, Key, credentials
from kernel.clock import iso

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from custody.payout_model import Quorum
    from custody.policy_model import ApprovalPolicy, Decision, PolicyRule, RequestFacts
    from custody.policy_review import Changed, DryRun

policy = typer.Typer(help="Who has to approve a payout.", no_args_is_help=True)

ANY: Final = "*"
PAGES_MAX: Final = 200
"""A dry run of one command looks at so many pages; more are asked for with --after."""
MATCHES: Final = (
    *("claim", "party", "initiator", "chain", "asset", "wallet", "destination"),
    "destination_age_min_s",
)


@policy.command("show")
def policy_show(
    *,
    version: Annotated[int | None, typer.Option(help="This one; else the one in force.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the approval policy: the first rule that matches decides, the last one blocks.

    Example: `causeway custody policy show`
    """

    async def work(conn: AsyncConnection) -> tuple[ApprovalPolicy, Money]:
        from custody.payout_control import get_active_policy, get_policy

        found = (
            await get_active_policy(conn) if version is None else await get_policy(conn, version)
        )
        return found, await Money.load(conn)

    found, money = read(work)
    columns = ("rule", "name", "for", "up_to", "window", "action", "approvals", "groups", "lapses")
    rows = [(str(number), *_rule(rule, money)) for number, rule in enumerate(found.rules, start=1)]
    title = f"Approval policy {found.version}, {found.state}, proposed by {found.proposed_by}"
    show(title, columns, rows, as_json=as_json, right=("up_to", "approvals"))


@policy.command("explain")
def policy_explain(
    amount: Annotated[str, typer.Argument(help='Decimal and asset: "1.5 ETH".')],
    *,
    claim: Annotated[
        str, typer.Option(help="At whose expense: client:ID, payable:PARTY:netted, own:WALLET.")
    ],
    initiator: Annotated[str, typer.Option(help="Operator who would ask.")] = "",
    wallet: Annotated[str, typer.Option("--from", help="The wallet that would pay.")] = "",
    to: Annotated[str, typer.Option(help="Address; else any that the party may be paid at.")] = "",
    kind: Annotated[str, typer.Option(help="eoa, contract or own.")] = "eoa",
    age: Annotated[int, typer.Option(min=0, help="Days since the destination was allowed.")] = 366,
    chain: Chain = CHAIN_DEFAULT,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Say which rule of the approval policy would decide about a payout, and why no earlier one.

    Example: `causeway custody policy explain "25 ETH" --claim client:acme`
    """
    from app.cli.common import one_of
    from custody.payout_model import Claim, ClaimKind, DestinationKind
    from custody.policy_model import RequestFacts

    asked, parsed = Amount.parse(amount), Claim.parse(claim)
    own = parsed.kind is ClaimKind.OWN
    there = DestinationKind.OWN if own else one_of(DestinationKind, kind, "kind of destination")

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.payout_control import get_active_policy
        from custody.policy_review import explain_request

        found, money = await get_active_policy(conn), await Money.load(conn)
        facts = RequestFacts(
            initiator=initiator,
            claim=parsed.kind,
            party=None if own else parsed.name,
            chain=chain,
            asset=asked.asset,
            wallet=wallet,
            destination=to,
            destination_kind=there,
            destination_age_s=age * 86_400,
            amount=money.units(asked),
        )
        facts, said = await explain_request(conn, found, facts, book=book, now=clock().now())
        return _explained(found, facts, said, money)

    show_one(f"{amount} at the expense of {claim}", read(work), as_json=as_json)


@policy.command("decision")
def policy_decision(
    payout: Annotated[UUID, typer.Argument(metavar="PAYOUT", help="Id of the payout.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say which rule decided about a payout when it was requested, and on what facts.

    Example: `causeway custody policy decision 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.payout_control import get_policy
        from custody.policy_review import explain_past

        past, said = await explain_past(conn, payout)
        money, found = await Money.load(conn), await get_policy(conn, past.policy_version)
        return {"decided": iso(past.decided_at), **_explained(found, past.facts, said, money)}

    show_one(f"Payout {payout}", read(work), as_json=as_json)


@policy.command("propose")
def policy_propose(file: Path, *, as_: As, key: Key, as_json: AsJson = False) -> None:
    """Propose an approval policy from a JSON file: its rules, groups, services and limits.

    Your key signs the whole of it; a second administrator has to approve it.

    Example: `causeway custody policy propose policy.json --as ada --key ada.key`
    """
    who = credentials(as_, key)
    document = read_policy(file)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.payout_control import draft_policy, policy_bytes, propose_policy

        parsed = parse_policy(document, await Money.load(conn))
        me, now = await who.person(conn), clock().now()
        signature = me.sign(policy_bytes(await draft_policy(conn, parsed, by=me.code, now=now)))
        return _policy(await propose_policy(conn, parsed, by=me.code, signature=signature, now=now))

    show_one("Approval policy", write(work), as_json=as_json)


@policy.command("approve")
def policy_approve(version: int, *, as_: As, key: Key, as_json: AsJson = False) -> None:
    """Put a proposed approval policy in force: your key signs its rules.

    Example: `causeway custody policy approve 2 --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.payout_control import approve_policy, get_policy, policy_bytes

        me = await who.person(conn)
        signature = me.sign(policy_bytes(await get_policy(conn, version)))
        return _policy(
            await approve_policy(conn, version, by=me.code, signature=signature, now=clock().now())
        )

    show_one("Approval policy", write(work), as_json=as_json)


@policy.command("dry-run")
def policy_dry_run(
    file: Path,
    *,
    since: Annotated[str, typer.Option(help="Requests from this day or time on (UTC).")],
    after: Annotated[int, typer.Option(min=0, help="Go on after this request's number.")] = 0,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Try a policy on past requests: every one that it would have answered otherwise, and by which rule.

    Nothing is written. With --json the number of judged requests and where to go on are told too.

    Example: `causeway custody policy dry-run policy.json --since 2026-01-01`
    """
    begin = parse_time(since if "T" in since else f"{since}T00:00:00Z")
    assert begin is not None, "a text was given"
    document = read_policy(file)

    async def work(conn: AsyncConnection) -> tuple[list[DryRun], Money]:
        from custody.payout_control import draft_policy
        from custody.policy_review import dry_run

        money, now = await Money.load(conn), clock().now()
        draft = await draft_policy(conn, parse_policy(document, money), by="", now=now)
        pages, last = [], after
        for _ in range(PAGES_MAX):
            page = await dry_run(conn, draft, book=book, since=begin, after=last)
            pages.append(page)
            if page.after is None:
                break
            last = page.after
        return pages, money

    pages, money = read(work)
    rows = [_changed(item, money) for page in pages for item in page.changed]
    judged = sum(page.judged for page in pages)
    if as_json:
        emit(
            {
                "judged": judged,
                "changed": [dict(zip(CHANGED, row, strict=True)) for row in rows],
                "unfounded": [str(item) for page in pages for item in page.unfounded],
                "after": pages[-1].after,
            }
        )
        return
    title = f"{len(rows)} of {judged} requests since {since} would be answered otherwise"
    show(title, CHANGED, rows, as_json=False, right=("amount",))


CHANGED: Final = (
    *("payout", "requested", "reference", "claim", "amount"),
    *("policy", "rule", "said", "new_rule", "would_say", "reason"),
)


def _changed(item: Changed, money: Money) -> tuple[str, ...]:
    before, after = item.before, item.after
    return (
        *(str(before.payout_id), iso(before.decided_at), item.reference, item.claim),
        money.text(before.facts.amount, before.facts.asset),
        *(str(before.policy_version), str(before.rule), _said(before.action, before.required)),
        *(str(after.rule), _said(after.action, after.required), after.reason),
    )


def _explained(
    found: ApprovalPolicy, facts: RequestFacts, said: Decision, money: Money
) -> dict[str, str]:
    rule = found.rules[said.rule - 1]
    misses = [f"rule {miss.rule}: {', '.join(miss.fields)}" for miss in said.misses]
    reserved = [
        f"{money.text(amount, window.asset)} in {window.seconds} s of {window.party or 'all'}"
        for window, amount in facts.reserved.items()
    ]
    return {
        "policy": str(found.version),
        "rule": str(said.rule),
        "name": rule.name,
        "action": said.action,
        "approvals": str(sum(quorum.approvals for quorum in said.required)),
        "groups": _groups(said.required),
        "lapses": "" if said.expires_s is None else f"after {said.expires_s} s",
        "reason": said.reason,
        "missed": "; ".join(misses),
        "reserved": "; ".join(reserved),
    }


def _rule(rule: PolicyRule, money: Money) -> tuple[str, ...]:
    limit = "any"
    if rule.amount_max is not None:
        known = rule.asset != ANY
        units = rule.amount_max
        limit = money.text(units, rule.asset) if known else f"{units} smallest units"
    asked = [
        f"{name}={getattr(rule, name)}" for name in MATCHES if getattr(rule, name) not in {ANY, 0}
    ]
    window = "" if rule.window_s is None else f"{rule.window_s} s per {rule.per}"
    return (
        *(rule.name, " ".join(asked) or "everything", limit, window, rule.action),
        *(str(sum(quorum.approvals for quorum in rule.required)), _groups(rule.required)),
        "" if rule.expires_s is None else f"after {rule.expires_s} s",
    )


def _groups(required: Sequence[Quorum]) -> str:
    return ", ".join(f"{item.approvals} of {item.group}" for item in required)


def _said(action: str, required: Sequence[Quorum]) -> str:
    return f"{action} ({_groups(required)})" if required else action


def _policy(item: ApprovalPolicy) -> dict[str, Any]:
    return {
        "version": str(item.version),
        "state": str(item.state),
        "rules": str(len(item.rules)),
        "proposed_by": item.proposed_by,
        "approved_by": item.approved_by or "",
    }
