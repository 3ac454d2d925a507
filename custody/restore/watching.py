"""Looking whether the server that answers is the one that was left, at no earlier moment.

Three things tell. The database itself: a restore to a moment, and a promotion, begin another time line
of PostgreSQL. A file at another place, the *witness*, to which the house writes how far the server had
come: it shows a copy of the data directory that was put back. The signer, which was shown the marks.

Whoever looks does it once for each start of the server; until then every door is shut
(`custody.restore_gate`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.restore import store
from custody.restore.finding import begin
from custody.restore.ports import MarkedSigner
from custody.restore.signing import compare
from custody.restore.store import Server
from custody.signer.wire import Health
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import OutsideUnavailable, Refused
from kernel.private_files import replace_file

FILE: Final = "file"
WITNESS_BYTES_MAX: Final = 4_096
NOTE_EVERY: Final = timedelta(seconds=30)
"""How old the moment may be that the database knows of itself."""


class Witness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says: how far the server had come when it was written."""

    system: str
    timeline: int
    place: int
    mark: int
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look has shown.

    Attributes:
        compared: whether this start of the server had not been compared before.
        evidence: what says that the database was set back; "": nothing does.
    """

    compared: bool
    evidence: str = ""


async def look(
    engine: AsyncEngine,
    *,
    clock: Clock,
    witness: Path | None = None,
    signer: MarkedSigner | None = None,
) -> Look:
    """Compare the server with its witnesses where that was not done, and write how far it has come.

    Safe to call again at any time; a restore that is found shuts every door in the same transaction.

    Args:
        engine: the database, as the runtime role.
        clock: the time.
        witness: the file; None: the house has none.
        signer: asked where it answers; where it does not, it asks itself before it signs.

    Raises:
        Refused: the witness is lost, or cannot be read or written; doors that are shut stay so.
        StoreUnusable: it is the signer's store that is older.
    """
    told = None if witness is None else await asyncio.to_thread(_read, witness)
    health = None if signer is None else await _ask(signer)

    async def work(conn: AsyncConnection) -> tuple[Look, Witness | None]:
        return await _look(conn, told, health, has_file=witness is not None, now=clock.now())

    seen, after = await transact(engine, work)
    if witness is not None and after is not None and after != told:
        await asyncio.to_thread(_write, witness, after)
        if told is None:
            # Only a witness that was there can be lost.
            now, mark = clock.now(), after.mark
            await transact(engine, lambda conn: store.save_witnessed(conn, FILE, mark, now))
    return seen


def find_evidence(here: Server, left: Server | None, told: Witness | None) -> list[str]:
    """Return what says that *here* is not the server that was left, or an earlier moment of it. Pure.

    Args:
        left: the server that was compared last, as the database itself says.
        told: what the witness says.
    """
    found = []
    if left is not None and left.system != here.system:
        found.append(f"cluster {left.system} has become cluster {here.system}")
    elif left is not None and left.timeline != here.timeline:
        found.append(
            f"PostgreSQL is on time line {here.timeline} and was on {left.timeline}: it was restored"
            " to a moment, or a standby was promoted"
        )
    if told is None:
        return found
    if left is None:
        found.append("the witness knows this house, and the database does not know of the witness")
    if (told.system, told.timeline) == (here.system, here.timeline):
        if told.place > here.place:
            found.append(
                f"the server had written {told.place - here.place} bytes more when it was seen last"
            )
    elif not found:
        found.append(f"the witness has seen time line {told.timeline} of cluster {told.system}")
    return found


async def _look(
    conn: AsyncConnection,
    told: Witness | None,
    health: Health | None,
    *,
    has_file: bool,
    now: datetime,
) -> tuple[Look, Witness | None]:
    here = await store.read_server(conn)
    row = await store.find_watch(conn)
    standing = await store.find_standing(conn)
    is_lost = has_file and told is None and await store.witnessed(conn, FILE) is not None
    if is_lost and standing is None:
        raise Refused(
            "the witness of this database is lost",
            remedy="Bring the file back; if it is gone for good: causeway restore begin",
        )
    number, token, _ = await store.last_mark(conn)
    after = Witness(
        system=here.system, timeline=here.timeline, place=here.place, mark=number, token=token
    )
    compared = row is not None and row.started == here.started
    if row is not None and compared and not (has_file and told is None):
        if now - row.at >= NOTE_EVERY:
            await store.save_watch(conn, here, now)
        return Look(compared=False), after
    left = None
    if row is not None:
        left = Server(started=row.started, system=row.system, timeline=row.timeline, place=0)
    evidence = find_evidence(here, left, told)
    if told is not None and told.mark:
        known = await store.token_of(conn, told.mark)
        if known != told.token:
            evidence.append(f"the witness knows mark {told.mark}, which the database does not have")
    if health is not None and standing is None:
        said = await compare(conn, health)
        evidence += [said] if said else []
    words = "; ".join(evidence)
    if words and standing is None:
        # Where the database says itself that it comes from another server, nobody has looked since it
        # was set back, and behind a gate that is shut nobody could have worked with it. What only the
        # witness or the signer tells may be older than the last look: that may have been without them.
        moved = left is not None and (left.system, left.timeline) != (here.system, here.timeline)
        await begin(conn, words, worked_on=not moved, now=now)
    await store.save_watch(conn, here, now)
    if told is not None:
        await store.save_witnessed(conn, FILE, number, now)
    return Look(compared=not compared, evidence=words), after


def _read(path: Path) -> Witness | None:
    try:
        raw = path.read_bytes()[:WITNESS_BYTES_MAX]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"the witness cannot be read: {error.strerror}", where=str(path)) from error
    try:
        return msgspec.json.decode(raw, type=Witness)
    except msgspec.DecodeError as error:
        raise Refused(
            f"this is no witness: {error}",
            where=str(path),
            remedy="Bring the file back; else remove what is left of it, then: causeway restore begin",
        ) from error


def _write(path: Path, after: Witness) -> None:
    try:
        replace_file(path, msgspec.json.encode(after))
    except OSError as error:
        raise Refused(
            f"the witness cannot be written: {error.strerror}",
            where=str(path),
            remedy="Make its folder writable; until then a copy that is put back may go unseen",
        ) from error


async def _ask(signer: MarkedSigner) -> Health | None:
    try:
        return await signer.health()
    except OutsideUnavailable:
        return None
