"""``causeway alerts``: what people have to know, who is told, and who has taken it on."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    DryRun,
    Reason,
    clock,
    read,
    show,
    show_one,
    write,
)
from app.cli.operators import Approver, ApproverKey, As, Key, credentials
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from reporting.alerts.model import Alert, AlertPolicy, DeliveryState

app = typer.Typer(help="What people have to know, and who is told.", no_args_is_help=True)
policy = typer.Typer(help="Who is told of what.", no_args_is_help=True)
app.add_typer(policy, name="policy")

COLUMNS: Final = ("id", "state", "kind", "level", "raised", "by", "messages", "text")
FILE_BYTES_MAX: Final = 100_000


@app.command("list")
def list_(
    *,
    every: Annotated[bool, typer.Option("--all", help="Those that are over as well.")] = False,
    before: Annotated[
        UUID | None, typer.Option(help="Only those raised before this one: the next page.")
    ] = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List alerts, newest first, a page of 500.

    Example: `causeway alerts list`
    """

    async def work(
        conn: AsyncConnection,
    ) -> tuple[list[Alert], dict[UUID, dict[DeliveryState, int]]]:
        from reporting.alerts.model import AlertState
        from reporting.alerts.queries import OPEN, count_messages, get_alert, list_alerts

        after = None
        if before is not None:
            last = await get_alert(conn, before)
            after = (last.raised_at, last.id)
        states = tuple(AlertState) if every else OPEN
        found = await list_alerts(conn, book, states=states, after=after)
        return found, await count_messages(conn, [item.id for item in found])

    found, messages = read(work)
    rows = [_row(item, messages.get(item.id, {})) for item in found]
    show("Alerts", COLUMNS, rows, as_json=as_json)


@app.command()
def ack(
    alert: Annotated[UUID, typer.Argument(metavar="ALERT", help="Id of the alert.")],
    *,
    reason: Reason = "",
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Take an alert on: it is yours, and is not escalated any further.

    Example: `causeway alerts ack 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "calling the bank" --as ada --key ada.key`
    """
    who = credentials(as_, key)
    now = clock().now()

    async def work(conn: AsyncConnection) -> Alert:
        from reporting.alerts.alerts import acknowledge

        me = await who.person(conn)
        return await acknowledge(conn, alert, by=me.operator, reason=reason, now=now)

    show_one("Alert", _facts(write(work)), as_json=as_json)


@app.command("test")
def try_(*, as_: As, key: Key, book: Book = BOOK_DEFAULT, as_json: AsJson = False) -> None:
    """Raise an alert that means nothing, to see whether it arrives; acknowledge it to end it.

    Example: `causeway alerts test --as ada --key ada.key`
    """
    who = credentials(as_, key)
    now = clock().now()

    async def work(conn: AsyncConnection) -> Alert:
        from reporting.alerts.alerts import raise_test

        me = await who.person(conn)
        return await raise_test(conn, book, by=me.operator, now=now)

    show_one("Alert", _facts(write(work)), as_json=as_json)


@policy.command("show")
def show_(*, as_json: AsJson = False) -> None:
    """Show who is told of what; version 0: nobody has said, and nobody is told.

    Example: `causeway alerts policy show`
    """

    async def work(conn: AsyncConnection) -> AlertPolicy:
        from reporting.alerts.policies import current_policy

        return await current_policy(conn)

    _show_policy(read(work), as_json=as_json)


@policy.command("set")
def set_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy in TOML.")],
    *,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Put a policy into force: entered by one operator, signed by another.

    Example: `causeway alerts policy set alerts.toml --as ada --key ada.key --approver ben --approver-key ben.key`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)
    now = clock().now()
    document = _read_toml(file)

    async def work(conn: AsyncConnection) -> AlertPolicy:
        from reporting.alerts.policies import current_policy, policy_bytes, set_policy

        me, other = await first.person(conn), await second.person(conn)
        newest = await current_policy(conn)
        made = _parse(document, newest.version + 1, str(file))
        return await set_policy(
            conn,
            made,
            by=me.operator,
            approver=other.operator,
            signature=other.sign(policy_bytes(made)),
            now=now,
        )

    _show_policy(write(work, dry_run=dry_run), as_json=as_json)


def _read_toml(file: Path) -> dict[str, Any]:
    import tomllib

    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise BadInput("the policy is too large", where=str(file))
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"the policy cannot be read: {error}", where=str(file)) from error


def _parse(document: dict[str, Any], version: int, where: str) -> AlertPolicy:
    from reporting.alerts.model import AlertKind, AlertPolicy, Channel, ChannelKind, Route

    unknown = document.keys() - {"escalate_minutes", "channel", "route"}
    if unknown:
        raise BadInput(
            f"the policy has the key {min(unknown)}",
            where=where,
            remedy="Known are escalate_minutes, [[channel]] and [[route]]",
        )
    try:
        return AlertPolicy(
            version=version,
            channels=tuple(
                Channel(name=c["name"], kind=ChannelKind(c["kind"]), target=c["target"])
                for c in document.get("channel", [])
            ),
            routes=tuple(
                Route(
                    level=r["level"],
                    channel=r["channel"],
                    kinds=frozenset(AlertKind(kind) for kind in r.get("kinds", [])),
                )
                for r in document.get("route", [])
            ),
            escalate_after=timedelta(minutes=document.get("escalate_minutes", 15)),
        )
    except KeyError as error:
        raise BadInput(f"a channel or route does not say {error}", where=where) from error
    except (TypeError, ValueError) as error:
        known = ", ".join(AlertKind)
        raise BadInput(str(error), where=where, remedy=f"Kinds are {known}") from error


def _show_policy(found: AlertPolicy, *, as_json: bool) -> None:
    channels = {channel.name: channel for channel in found.channels}
    rows = [
        (
            str(found.version),
            str(route.level),
            route.channel,
            str(channels[route.channel].kind),
            channels[route.channel].target,
            ", ".join(sorted(route.kinds)) or "all",
            str(found.escalate_after // timedelta(minutes=1)),
        )
        for route in sorted(found.routes, key=lambda r: (r.level, r.channel))
    ]
    columns = ("version", "level", "channel", "by", "to", "kinds", "escalate_minutes")
    show("Who is told", columns, rows, as_json=as_json)


def _row(item: Alert, messages: dict[DeliveryState, int]) -> tuple[str, ...]:
    told = ", ".join(f"{count} {state}" for state, count in sorted(messages.items()))
    return (
        str(item.id),
        str(item.state),
        str(item.kind),
        str(item.level),
        iso(item.raised_at),
        item.acknowledged_by or "",
        told,
        item.text,
    )


def _facts(item: Alert) -> dict[str, str]:
    return dict(zip(COLUMNS, _row(item, {}), strict=True))
