"""The database is switched off: the books are proven from two files, by us and by strangers' programs."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
import orjson
from rich.table import Table
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from app.demo.guided.chapter import Chapter
from app.demo.guided.tour import Tour
from app.demo.stage import BOOK
from app.demo.world import EXPORTS
from ledger.checkpoint import Checkpoint, origin_of, sign, verifier_key
from ledger.export.exporting import export_journal as export_for
from ledger.export.model import Format
from ledger.journal_file import export_journal
from ledger.proofs import make_checkpoint
from ledger.queries import head
from registry.testing import operator_keypair

JOURNAL, CHECKPOINT = "book.journal", "book.checkpoint"
BEANCOUNT, HLEDGER = "book.beancount", "book.hledger"
NOWHERE: Final = "postgresql://nobody@127.0.0.1:1/none"
"""What a program is told of a database that it must not ask."""
PROGRAM_S_MAX: Final = 120
ASSERTED: Final = re.compile(r"^\d{4}-\d\d-\d\d balance \S+\s+-?|\" = -?", re.MULTILINE)
"""What stands before an asserted balance: beancount's directive, hledger's assertion behind an amount."""
ADDED: Final = "1"


@dataclass(frozen=True, slots=True)
class Said:
    """What a program answered."""

    code: int
    output: bytes


async def the_database_is_off(tour: Tour) -> None:
    """Export, switch PostgreSQL off, verify from files alone, and have other programs add up."""
    stage = tour.stage
    folder = stage.world.folder / EXPORTS
    folder.mkdir()
    tour.say(
        "The journal goes into one file, its checkpoint (four lines, signed by Cleo) into another. Then",
        "the database is switched off. An auditor who has the two files and Cleo's public key needs",
        "nothing of ours but the verifier, and for the sums not even that.",
    )
    made = await _export(tour, folder)
    stage.note(f"journal of {made.size} records and its checkpoint are written", str(folder))
    key = operator_keypair("cleo").private.public_key()
    (folder / "cleo.pub").write_text(verifier_key(made.origin, key))
    tour.exhibit("the checkpoint", (folder / CHECKPOINT).read_text().rstrip())

    is_off = await _switch_off(tour)
    said = await _verify(folder, JOURNAL)
    found = orjson.loads(said.output)
    forged = folder / f"forged-{JOURNAL}"
    await asyncio.to_thread(_forge, folder / JOURNAL, forged, tour.chance.randrange(2, made.size))
    refused = await _verify(folder, forged.name)
    programs = await _programs(tour, folder)
    await _switch_on(tour)

    tour.exhibit("other people's programs", _table(programs))
    tour.prove(
        "with the database off, journal and checkpoint verify",
        is_off
        and said.code == 0
        and (found["held"], found["signature"], found["records"]) == (True, "valid", made.size),
        f"{found['records']} records, signature {found['signature']}, root {found['root'][:16]}…",
    )
    tour.prove(
        "one byte changed in the file, and it does not",
        refused.code == 1,
        _first_fault(refused),
    )
    for name, (as_written, changed) in programs.items():
        tour.prove(
            f"{name} comes to our balances, and objects when one digit is changed",
            as_written.code == 0 and changed.code != 0,
            "every account's closing balance asserted",
        )
    await tour.prove_places()


async def _export(tour: Tour, folder: Path) -> Checkpoint:
    stage = tour.stage
    engine = stage.world.engine

    async def check(conn: AsyncConnection) -> Checkpoint:
        origin = origin_of((await head(conn, BOOK)).entity, BOOK)
        return await make_checkpoint(conn, BOOK, origin=origin)

    await export_journal(engine, BOOK, folder / JOURNAL)
    made = await stage.do(check)
    note = sign(made, operator_keypair("cleo").private, name=made.origin)
    (folder / CHECKPOINT).write_text(note)
    for name, kind in ((BEANCOUNT, Format.BEANCOUNT), (HLEDGER, Format.HLEDGER)):
        await export_for(engine, BOOK, folder / name, kind, assets=stage.assets)
    return made


async def _switch_off(tour: Tour) -> bool:
    """End PostgreSQL, where it is ours; tell whether it answers nobody any more."""
    world = tour.stage.world
    await world.engine.dispose()
    if world.server is None:
        tour.stage.note("the database is not ours to switch off: the verifier is told of none")
        return True
    await asyncio.to_thread(world.server.stop)
    plain = make_url(world.owner_url).set(drivername="postgresql")
    try:
        await asyncpg.connect(plain.render_as_string(hide_password=False))
    except OSError as error:
        tour.stage.note(f"PostgreSQL is off: {type(error).__name__}")
        return True
    return False


async def _switch_on(tour: Tour) -> None:
    server = tour.stage.world.server
    if server is not None:
        await asyncio.to_thread(server.start)
        tour.stage.note("PostgreSQL is on again")


async def _verify(folder: Path, journal: str) -> Said:
    options = ("--journal", journal, "--checkpoint", CHECKPOINT, "--key", "cleo.pub", "--json")
    return await _run(folder, sys.executable, "-m", "causeway", "verify", *options)


def _forge(journal: Path, forged: Path, line: int) -> None:
    """Copy a journal with the lowest bit of the middle byte of one record flipped."""
    lines = journal.read_bytes().splitlines(keepends=True)
    record = bytearray(lines[line])
    record[len(record) // 2] ^= 1
    lines[line] = bytes(record)
    forged.write_bytes(b"".join(lines))


async def _programs(tour: Tour, folder: Path) -> dict[str, tuple[Said, Said]]:
    """Let beancount and hledger, where they are installed, read what was exported, and a falsified copy."""
    found: dict[str, tuple[Said, Said]] = {}
    checks = {
        "beancount": (_find("bean-check"), (), BEANCOUNT),
        "hledger": (_find("hledger"), ("check", "--strict", "-f"), HLEDGER),
    }
    for name, (program, options, file) in checks.items():
        if program is None:
            tour.stage.note(f"{name} is not installed here: {file} is written all the same")
            continue
        changed = folder / f"changed-{file}"
        changed.write_text(change_one_amount((folder / file).read_text()))
        found[name] = (
            await _run(folder, program, *options, file),
            await _run(folder, program, *options, changed.name),
        )
        tour.stage.note(
            f"{name} reads {file}: {'no complaint' if not found[name][0].code else 'NO'}"
        )
    return found


def change_one_amount(text: str) -> str:
    """Return an exported book with one digit more in the last balance that it asserts."""
    asserted = list(ASSERTED.finditer(text))[-1]
    return text[: asserted.end()] + ADDED + text[asserted.end() :]


def _find(program: str) -> str | None:
    """Return where a program is: named by its variable, beside this Python, fetched, or on the path."""
    places = (
        Path(os.environ.get(program.upper().replace("-", "_"), "/nowhere")),
        Path(sys.executable).with_name(program),
        Path.cwd() / ".cache" / "hledger" / "usr" / "bin" / program,
    )
    found = next((str(place) for place in places if place.is_file()), None)
    return found or shutil.which(program)


async def _run(folder: Path, *command: str) -> Said:
    """Run a program that has no database, in the folder of the exports."""
    environment = {**os.environ, "CAUSEWAY_DATABASE_URL": NOWHERE}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(PROGRAM_S_MAX):
        output, _ = await process.communicate()
    return Said(process.returncode or 0, output)


def _first_fault(said: Said) -> str:
    faults = orjson.loads(said.output)["faults"]
    return f"{faults[0]['row']}: {faults[0]['what']}"


def _table(programs: dict[str, tuple[Said, Said]]) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_row("", "as exported", "one digit changed", style="dim")
    for name, (as_written, changed) in programs.items():
        table.add_row(
            name,
            "[green]agrees[/]" if as_written.code == 0 else "[red]complains[/]",
            "[green]objects[/]" if changed.code else "[red]agrees[/]",
        )
    if not programs:
        table.add_row("none is installed here", "", "")
    return table


CHAPTER: Final = Chapter(
    "exports",
    "The database is off",
    "What can be proven by somebody who is given two files and no access?",
    the_database_is_off,
)
