"""``causeway custody signer``: what the signer says of itself, and what people tell it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.common import (
    AsJson,
    DryRun,
    clock,
    emit,
    on_database,
    one_of,
    read,
    run,
    show,
    show_one,
    write,
)
from app.cli.operators import Approver, ApproverKey, As, Key, credentials
from kernel.clock import iso
from kernel.errors import BadInput, Refused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from custody.signer.client import SignerClient

signer_app = typer.Typer(
    help="The signer: health, log, checkpoints, what it is told.", no_args_is_help=True
)

Endpoint = Annotated[
    str, typer.Option("--signer", help="Where it listens: a socket's path, or tls://HOST:PORT.")
]
Tls = Annotated[
    Path | None,
    typer.Option("--tls", help="TLS: folder with authority.pem, certificate.pem and key.pem."),
]
KINDS: Final = ("operators", "limits", "wallet", "payout.dead", "destination.allow")
BODY_BYTES_MAX: Final = 262_144


@signer_app.command()
def health(*, signer: Endpoint, tls: Tls = None, as_json: AsJson = False) -> None:
    """Ask the signer for its keys, its log and what is in force.

    Example: `causeway custody signer health --signer /run/causeway/signer.sock`
    """
    client = signer_client(signer, tls)
    found, state = run(client.health), run(client.state)
    if as_json:
        emit(
            {
                "key_id": found.key_id,
                "signed": found.signed,
                "records": found.records,
                "verifier_key": found.verifier_key,
                "in_force": state,
            }
        )
        return
    freezes = [f"{item['scope']} {item['name']}".strip() for item in state["freezes"]]
    facts = {
        "keys": found.key_id,
        "signed": str(found.signed),
        "log": f"{found.records} records",
        "checkpoints are signed by": found.verifier_key,
        "operators": f"{len(state['operators']['operators'])}, version {state['operators']['version']}",
        "limits": f"version {state['limits']['version']}",
        "approval policy": str(state["policy_version"] or "not bound to one"),
        "destinations": str(state["destinations"]),
        "frozen": ", ".join(freezes) or "nothing",
    }
    show_one("Signer", facts, as_json=False)


@signer_app.command()
def messages(
    *,
    state: Annotated[str, typer.Option("--state", help="queued, accepted or refused.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the control messages that people have signed, and what the signer said.

    Example: `causeway custody signer messages --state refused`
    """

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from custody.signer_sync import ControlState, list_messages

        wanted = one_of(ControlState, state, "state of a message") if state else None
        return [
            (
                iso(item.queued_at),
                item.kind,
                item.subject,
                ", ".join(signed.operator for signed in item.message.signatures),
                item.state,
                item.refusal or ("" if item.record is None else f"record {item.record}"),
            )
            for item in await list_messages(conn, state=wanted)
        ]

    columns = ("queued", "kind", "about", "signed by", "state", "answer")
    show("Control messages", columns, read(work), as_json=as_json)


@signer_app.command()
def control(
    *,
    signer: Endpoint,
    tls: Tls = None,
    adopt: Annotated[
        bool,
        typer.Option(
            "--adopt", help="The signer has a new store on purpose: tell it everything anew."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Hand over to the signer what people have signed and it has not answered.

    Example: `causeway custody signer control --signer /run/causeway/signer.sock`
    """

    async def work(engine: AsyncEngine) -> dict[str, Any]:
        from custody.signer_sync import adopt_signer, push_control
        from kernel.db import transact

        client, now = signer_client(signer, tls), clock().now()
        if adopt:
            key = (await client.health()).verifier_key
            await transact(engine, lambda conn: adopt_signer(conn, key, now=now))
        report = await push_control(engine, client, now=now)
        return {"accepted": len(report.accepted), "refused": report.refused}

    async def inner() -> dict[str, Any]:
        return await on_database(work)

    done = run(inner)
    if as_json:
        emit(done)
    else:
        rows = {digest[:12]: why for digest, why in done["refused"].items()}
        show_one("Handed over", {"accepted": str(done["accepted"]), **rows}, as_json=False)
    if done["refused"]:
        raise typer.Exit(1)


@signer_app.command()
def change(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    body: Annotated[Path, typer.Argument(help="JSON file: the whole next version.")],
    *,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Sign a change of the signer's operators, limits, wallets or vaults by two people; queue it.

    Example: `causeway custody signer change limits limits.json --as ada --key ada.key
    --approver ben --approver-key ben.key`
    """
    one, two = credentials(as_, key), credentials(approver, approver_key)
    if one.code == two.code:
        raise Refused("two different people sign", remedy="Name another with --approver")

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.control_messages import (
            BODIES,
            ControlKind,
            control_bytes,
            message_of,
            read_body,
        )
        from custody.signer_sync import queue_control

        if kind not in KINDS:
            raise BadInput(f"{kind} is not changed here", remedy=f"One of {', '.join(KINDS)}")
        what = ControlKind(kind)
        document = read_body(what, _read_json(body), BODIES[what])
        payload = control_bytes(what, document.plain())
        people = [await item.person(conn) for item in (one, two)]
        signatures = {person.code: person.sign(payload) for person in people}
        message = message_of(what, document, signatures)
        await queue_control(conn, message, now=clock().now())
        return {"kind": kind, "digest": message.digest, "signed by": ", ".join(sorted(signatures))}

    done = write(work, dry_run=dry_run)
    show_one("Queued for the signer", done, as_json=as_json, dry_run=dry_run)


@signer_app.command()
def checkpoint(
    *,
    signer: Endpoint,
    tls: Tls = None,
    since: Annotated[
        Path | None, typer.Option("--since", help="A checkpoint that was kept: prove it goes on.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Keep the newest one here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Take the signer's checkpoint, and prove that its log goes on from one that was kept.

    Example: `causeway custody signer checkpoint --signer signer.sock --since kept.txt --out new.txt`
    """
    from custody.signer_sync import check_continued

    client = signer_client(signer, tls)
    kept = None if since is None else since.read_text() if since.is_file() else _missing(since)
    note, newest = run(lambda: check_continued(client, kept))
    if out is not None:
        out.write_text(note)
    facts = {"origin": newest.origin, "size": str(newest.size), "root": newest.root.hex()}
    proved = {} if kept is None else {"goes on from": str(since)}
    show_one("Checkpoint", {**facts, **proved}, as_json=as_json)


@signer_app.command()
def audit(
    index: Annotated[int, typer.Argument(help="Number of the record, from 0.", min=0)],
    *,
    signer: Endpoint,
    tls: Tls = None,
    as_json: AsJson = False,
) -> None:
    """Show a record of the signer's log, proved to be in its checkpoint.

    Example: `causeway custody signer audit 17 --signer /run/causeway/signer.sock --json`
    """
    from custody.signer_sync import read_proved

    record, size = run(lambda: read_proved(signer_client(signer, tls), index))
    if as_json:
        emit({**record, "tree_size": size})
        return
    facts = {name: str(value) for name, value in record.items() if name != "body"}
    show_one("Record", {**facts, "body": json.dumps(record["body"], indent=1)}, as_json=False)


def signer_client(endpoint: str, tls: Path | None) -> SignerClient:
    """Return the client of a signer at a socket's path or ``tls://HOST:PORT``."""
    from custody.signer.client import SignerClient
    from custody.signer.transport import TlsFiles, parse_endpoint

    files = None
    if tls is not None:
        files = TlsFiles(tls / "authority.pem", tls / "certificate.pem", tls / "key.pem")
    return SignerClient(parse_endpoint(endpoint, files))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes()[:BODY_BYTES_MAX])
    except OSError as error:
        raise BadInput(f"cannot read it: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise BadInput("not a JSON document", where=f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise BadInput("not a JSON object", where=str(path))
    return document


def _missing(path: Path) -> str:
    raise BadInput("there is no such file", where=str(path))
