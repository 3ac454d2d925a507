"""``causeway custody destinations`` and ``policy``: the rules that two people make."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from app.cli.common import (
    CHAIN_DEFAULT,
    Amount,
    AsJson,
    Chain,
    Money,
    Reason,
    clock,
    read,
    show,
    show_one,
    write,
)
from app.cli.operators import As, Key, credentials
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from custody.payout_model import AllowedDestination, ApprovalPolicy, PolicyRule

destinations = typer.Typer(help="Where coins may go, by party.", no_args_is_help=True)
policy = typer.Typer(help="How many people approve a payout.", no_args_is_help=True)

DestinationId = Annotated[UUID, typer.Argument(metavar="DESTINATION", help="Its id.")]
ANY = "*"


@destinations.command("list")
def destinations_list(
    *,
    party: Annotated[str | None, typer.Option(help="Only those of this party.")] = None,
    as_json: AsJson = False,
) -> None:
    """List destinations, proposed and allowed.

    Example: `causeway custody destinations list --party acme`
    """

    async def work(conn: AsyncConnection) -> list[AllowedDestination]:
        from custody.allow_list import list_destinations

        return await list_destinations(conn, party=party)

    rows = [_destination(item) for item in read(work)]
    columns = (
        *("id", "state", "party", "chain", "address", "label"),
        *("proposed_by", "approved_by", "usable_from"),
    )
    show("Destinations", columns, [tuple(row.values()) for row in rows], as_json=as_json)


@destinations.command("propose")
def destinations_propose(
    party: str,
    to: Annotated[str, typer.Argument(metavar="ADDRESS", help="With its EIP-55 checksum.")],
    *,
    label: Annotated[str, typer.Option(help="What people call it.")] = "",
    cooling_off: Annotated[
        int, typer.Option("--cooling-off", min=0, help="Hours from approval to first use.")
    ] = 0,
    chain: Chain = CHAIN_DEFAULT,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Propose that a party's coins may go to an address; a second operator has to approve it.

    Example: `causeway custody destinations propose acme 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --as dan
    --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> AllowedDestination:
        from custody.allow_list import propose_destination

        me = await who.person(conn)
        return await propose_destination(
            conn,
            party=party,
            chain=chain,
            address=to,
            label=label,
            by=me.code,
            now=clock().now(),
            cooling_off=timedelta(hours=cooling_off),
        )

    show_one("Destination", _destination(write(work)), as_json=as_json)


@destinations.command("approve")
def destinations_approve(
    destination_id: DestinationId, *, as_: As, key: Key, as_json: AsJson = False
) -> None:
    """Allow a proposed destination: your key signs party, chain and address.

    Example: `causeway custody destinations approve 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> AllowedDestination:
        from custody.allow_list import approve_destination, destination_bytes, get_destination

        me = await who.person(conn)
        pending = await get_destination(conn, destination_id)
        return await approve_destination(
            conn,
            destination_id,
            by=me.code,
            signature=me.sign(destination_bytes(pending)),
            now=clock().now(),
        )

    show_one("Destination", _destination(write(work)), as_json=as_json)


@destinations.command("reject")
def destinations_reject(
    destination_id: DestinationId, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False
) -> None:
    """Refuse a proposed destination.

    Example: `causeway custody destinations reject 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "not theirs"
    --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> AllowedDestination:
        from custody.allow_list import reject_destination

        me = await who.person(conn)
        return await reject_destination(
            conn, destination_id, by=me.code, reason=reason, now=clock().now()
        )

    show_one("Destination", _destination(write(work)), as_json=as_json)


@destinations.command("revoke")
def destinations_revoke(
    destination_id: DestinationId, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False
) -> None:
    """Take an allowed destination back, at once and by one person.

    Example: `causeway custody destinations revoke 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "key lost"
    --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> AllowedDestination:
        from custody.allow_list import revoke_destination

        me = await who.person(conn)
        return await revoke_destination(
            conn, destination_id, by=me.code, reason=reason, now=clock().now()
        )

    show_one("Destination", _destination(write(work)), as_json=as_json)


@policy.command("show")
def policy_show(
    *,
    version: Annotated[int | None, typer.Option(help="This one; else the one in force.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the approval policy: the first rule that matches decides, and none means no.

    Example: `causeway custody policy show`
    """

    async def work(conn: AsyncConnection) -> tuple[ApprovalPolicy, Money]:
        from custody.payout_control import get_active_policy, get_policy

        found = (
            await get_active_policy(conn) if version is None else await get_policy(conn, version)
        )
        return found, await Money.load(conn)

    found, money = read(work)
    columns = ("rule", "claim", "asset", "up_to", "approvals")
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
    as_json: AsJson = False,
) -> None:
    """Say which rule of the approval policy would decide about a payout, and what it asks.

    Example: `causeway custody policy explain "25 ETH" --claim client:acme`
    """
    from custody.payout_model import Claim

    asked, parsed = Amount.parse(amount), Claim.parse(claim)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.payout_control import get_active_policy
        from custody.payout_policy import approvals_required, find_rule

        found, money = await get_active_policy(conn), await Money.load(conn)
        units = money.units(asked)
        needed = approvals_required(found, parsed, asked.asset, units)
        rule = find_rule(found, parsed, asked.asset, units)
        assert rule is not None, "approvals_required refuses where no rule matches"
        names = ("claim", "asset", "up_to", "approvals")
        return {
            "policy": str(found.version),
            "rule": str(found.rules.index(rule) + 1),
            **dict(zip(names, _rule(rule, money), strict=True)),
            "approvals": str(needed),
        }

    show_one(f"{amount} at the expense of {claim}", read(work), as_json=as_json)


@policy.command("propose")
def policy_propose(file: Path, *, as_: As, key: Key, as_json: AsJson = False) -> None:
    """Propose an approval policy: a JSON list of rules with claim, asset, amount_max, approvals.

    Example: `causeway custody policy propose policy.json --as ada --key ada.key`
    """
    who = credentials(as_, key)
    document = read_rules(file)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.payout_control import propose_policy

        rules = await _parse_rules(conn, document)
        me = await who.person(conn)
        return _policy(await propose_policy(conn, rules, by=me.code, now=clock().now()))

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


def read_rules(path: Path) -> list[dict[str, Any]]:
    """Read the rules of an approval policy from a JSON file.

    Raises:
        BadInput: not a JSON list of objects with the known fields.
    """
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"the rules cannot be read: {error}", where=str(path)) from error
    fields = {"claim", "asset", "amount_max", "approvals"}
    if not isinstance(document, list) or not all(
        isinstance(rule, dict) and rule.keys() <= fields for rule in document
    ):
        raise BadInput(
            "the rules are not a list of objects",
            where=str(path),
            remedy=f"Known fields are {', '.join(sorted(fields))}",
        )
    return document


async def _parse_rules(
    conn: AsyncConnection, document: list[dict[str, Any]]
) -> tuple[PolicyRule, ...]:
    from custody.payout_model import PolicyRule

    money = await Money.load(conn)
    rules = []
    for number, rule in enumerate(document, start=1):
        limit, approvals = rule.get("amount_max"), rule.get("approvals", 1)
        asset = str(rule.get("asset", ANY))
        if not isinstance(approvals, int) or isinstance(approvals, bool):
            raise BadInput(f"the approvals of rule {number} are not a whole number")
        if limit is not None and (asset == ANY or not isinstance(limit, str)):
            raise BadInput(
                f"rule {number} has an amount_max without its asset, or not as text",
                remedy='Write {"asset": "ETH", "amount_max": "10"}',
            )
        rules.append(
            PolicyRule(
                claim=str(rule.get("claim", ANY)),
                asset=asset,
                amount_max=None if limit is None else money.asset(asset).parse(limit),
                approvals=approvals,
            )
        )
    return tuple(rules)


def _destination(item: AllowedDestination) -> dict[str, str]:
    return {
        "id": str(item.id),
        "state": str(item.state),
        "party": item.party,
        "chain": item.chain,
        "address": item.address,
        "label": item.label,
        "proposed_by": item.proposed_by,
        "approved_by": item.approved_by or "",
        "usable_from": "" if item.usable_from is None else iso(item.usable_from),
    }


def _rule(rule: PolicyRule, money: Money) -> tuple[str, str, str, str]:
    limit = "any"
    if rule.amount_max is not None:
        known = rule.asset != ANY
        units = rule.amount_max
        limit = money.text(units, rule.asset) if known else f"{units} smallest units"
    return rule.claim, rule.asset, limit, str(rule.approvals)


def _policy(item: ApprovalPolicy) -> dict[str, str]:
    return {
        "version": str(item.version),
        "state": str(item.state),
        "rules": str(len(item.rules)),
        "proposed_by": item.proposed_by,
        "approved_by": item.approved_by or "",
    }
