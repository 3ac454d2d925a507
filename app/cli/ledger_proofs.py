"""``causeway ledger checkpoint``, ``prove``, ``check-proof`` and ``export-journal``: proofs for others.

A checkpoint is signed with an operator's Ed25519 key; whoever has the verifier key that is printed
with it can check a transfer, or the whole journal, without this database and without us.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    emit,
    on_database,
    read,
    run,
    show,
    show_one,
)
from app.cli.operators import read_key
from app.cli.progress import progress_bar
from kernel.errors import BadInput, Refused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from ledger.checkpoint import Checkpoint
    from ledger.journal_verification import JournalVerified
    from ledger.proofs import ConsistencyProof, InclusionProof

SigningKey = Annotated[
    Path, typer.Option("--key", metavar="FILE", help="An operator's Ed25519 private key.")
]
VerifierKey = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="KEY", help="The verifier key NAME+HASH+KEY, or a file that holds it."
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write it to this file, not to the screen.")
]
NOT_SIGNED = "the signature was not checked: give the verifier key with --key"


def register(app: typer.Typer) -> None:
    """Add these commands to ``causeway ledger``."""
    app.command("checkpoint")(checkpoint)
    app.command("prove")(prove)
    app.command("check-proof")(check_proof)
    app.command("export-journal")(export_journal)


def checkpoint(
    *,
    key: SigningKey,
    size: Annotated[
        int | None, typer.Option(help="Of the first records only; without it, of all.")
    ] = None,
    output: Output = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Sign what the whole journal is: its size and the root of the tree over it.

    The text is that of C2SP tlog-checkpoint; its origin names the entity and the book.

    Example: `causeway ledger checkpoint --key ada.key -o today.checkpoint`
    """
    from ledger.checkpoint import origin_of, sign, verifier_key

    signing = read_key(key)

    async def work(conn: AsyncConnection) -> Checkpoint:
        from ledger.proofs import make_checkpoint
        from ledger.queries import head

        origin = origin_of((await head(conn, book)).entity, book)
        return await make_checkpoint(conn, book, origin=origin, size=size)

    made = read(work)
    note = sign(made, signing, name=made.origin)
    public = verifier_key(made.origin, signing.public_key())
    if output is not None:
        _write(output, note)
    if as_json:
        facts = {"origin": made.origin, "size": made.size, "root": made.root.hex()}
        emit({**facts, "verifier_key": public, "note": note})
    elif output is None:
        typer.echo(note, nl=False)
        typer.echo(f"verifier key: {public}", err=True)
    else:
        show_one(
            "Checkpoint",
            {"origin": made.origin, "size": str(made.size), "verifier key": public},
            as_json=False,
        )


def prove(
    transfer: Annotated[UUID | None, typer.Argument(help="The id of a transfer.")] = None,
    *,
    between: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two sizes of the journal, or two files with checkpoints."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option("--checkpoint", metavar="FILE", help="Prove it is in this one; else in all."),
    ] = None,
    output: Output = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Prove that a transfer is in the journal, or that the journal only grew between two sizes.

    The proof is JSON that `causeway ledger check-proof` checks without a database.

    Example: `causeway ledger prove 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 -o transfer.proof`
    """
    import orjson

    from ledger.proof_file import document

    if (transfer is None) is (between is None):
        raise BadInput("name a transfer, or two sizes with --between")
    wanted = None if against is None else read_checkpoint(against, None)
    sizes = [_size(text) for text in between] if between else []

    async def work(
        conn: AsyncConnection,
    ) -> tuple[InclusionProof | ConsistencyProof, str]:
        from ledger.checkpoint import origin_of
        from ledger.proofs import prove_consistency, prove_inclusion
        from ledger.queries import head

        origin = origin_of((await head(conn, book)).entity, book)
        if sizes:
            (first, _), (second, _) = sizes
            return await prove_consistency(conn, book, first, second), origin
        assert transfer is not None
        size = None if wanted is None else wanted.size
        return await prove_inclusion(conn, book, transfer, size=size), origin

    proof, origin = read(work)
    for claimed in [wanted, *(found for _, found in sizes)]:
        if claimed is not None:
            _require_same(proof, origin, claimed)
    made = document(proof, origin)
    text = orjson.dumps(made, option=orjson.OPT_INDENT_2).decode() + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    _write(output, text)
    facts = {"type": made["type"], "origin": origin, "file": str(output)}
    show_one("Proof", facts, as_json=as_json)


def check_proof(
    file: Annotated[Path, typer.Argument(help="A proof, as `prove` wrote it.")],
    *,
    checkpoints: Annotated[
        list[Path],
        typer.Option("--checkpoint", metavar="FILE", help="Of inclusion one, of consistency both."),
    ],
    key: VerifierKey = None,
    as_json: AsJson = False,
) -> None:
    """Check a proof against signed checkpoints; no database is asked.

    Example: `causeway ledger check-proof transfer.proof --checkpoint today.checkpoint --key house.vkey`
    """
    from ledger.proof_file import check, parse
    from ledger.proofs import InclusionProof

    proof, origin = parse(_read_text(file))
    check(proof, origin, [read_checkpoint(path, key) for path in checkpoints])
    facts = {"origin": origin, "holds": "yes", "signature": "valid" if key else "not checked"}
    if isinstance(proof, InclusionProof):
        facts |= {"record": proof.record.decode().replace("\t", " ")}
        facts |= {"sequence": str(proof.index + 1), "size": str(proof.size)}
    else:
        facts |= {"first": str(proof.first), "second": str(proof.second)}
    show_one("Proof", facts, as_json=as_json)
    if not key:
        typer.echo(NOT_SIGNED, err=True)


def export_journal(
    file: Annotated[Path, typer.Argument(help="The file to write; replaced whole.")],
    *,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Write the journal as its canonical lines: what the tree is built over, and nothing else.

    Example: `causeway ledger export-journal book-1.journal`
    """
    from ledger.journal_file import export_journal as verb

    header = run(
        lambda: on_database(
            lambda engine: verb(engine, book, file, progress=progress_bar("written"))
        )
    )
    facts = {"file": str(file), "book": str(book), "entity": header.entity}
    show_one("Journal", {**facts, "records": str(header.records)}, as_json=as_json)


def verify_file(
    journal: Path, checkpoint_file: Path | None, key: str | None, *, as_json: bool
) -> None:
    """Verify an exported journal; the work of ``causeway verify --journal``."""
    from dataclasses import asdict

    from ledger.journal_verification import verify_journal

    claimed = None if checkpoint_file is None else read_checkpoint(checkpoint_file, key)
    found = verify_journal(journal, claimed, progress=progress_bar("verified"))
    columns = ("table", "row", "what")
    rows = [(fault.table, fault.key, fault.what) for fault in found.faults]
    if as_json:
        emit(
            {
                "book": found.header.book,
                "entity": found.header.entity,
                "records": found.records,
                "root": found.root.hex(),
                "checkpoint": None if claimed is None else claimed.size,
                "signature": "valid" if key and claimed else "not checked",
                "held": not found.faults,
                "totals": [
                    {name: str(value) for name, value in asdict(total).items()}
                    for total in found.totals
                ],
                "faults": [dict(zip(columns, row, strict=True)) for row in rows],
            }
        )
    else:
        _show_file(journal, found, claimed, signed=bool(key and claimed))
    if found.faults:
        sys.exit(1)


def _show_file(
    journal: Path, found: JournalVerified, claimed: Checkpoint | None, *, signed: bool
) -> None:
    columns = ("asset", "accounts", "debits", "credits", "debits pending", "credits pending")
    show(
        f"Totals of {journal}, in smallest units",
        columns,
        [
            (
                total.asset,
                str(total.accounts),
                str(total.debits),
                str(total.credits),
                str(total.debits_pending),
                str(total.credits_pending),
            )
            for total in found.totals
        ],
        as_json=False,
        right=columns[1:],
    )
    if found.faults:
        rows = [(fault.table, fault.key, fault.what) for fault in found.faults]
        show("Faults", ("table", "row", "what"), rows, as_json=False)
        return
    typer.echo(f"book {found.header.book} of {found.header.entity} holds: {found.records} records")
    typer.echo(f"root {found.root.hex()}")
    if claimed is None:
        typer.echo("compared with no checkpoint: give one with --checkpoint", err=True)
    else:
        typer.echo(f"its first {claimed.size} records are those of the checkpoint")
        if not signed:
            typer.echo(NOT_SIGNED, err=True)


def _size(text: str) -> tuple[int, Checkpoint | None]:
    if text.isascii() and text.isdigit():
        return int(text), None
    found = read_checkpoint(Path(text), None)
    return found.size, found


def _require_same(
    proof: InclusionProof | ConsistencyProof, origin: str, claimed: Checkpoint
) -> None:
    from ledger.proofs import InclusionProof

    if isinstance(proof, InclusionProof):
        roots = {proof.size: proof.root}
    else:
        roots = {proof.first: proof.first_root, proof.second: proof.second_root}
    if claimed.origin != origin:
        raise Refused(f"the checkpoint is of {claimed.origin}, the book is {origin}")
    if roots[claimed.size] != claimed.root:
        raise Refused(
            f"the journal's first {claimed.size} records are not those of the checkpoint",
            remedy="Run `causeway verify`: the journal or the checkpoint was changed",
        )


def read_checkpoint(path: Path, key: str | None) -> Checkpoint:
    """Read a checkpoint, and check its signature where a verifier key is given."""
    from ledger.checkpoint import parse_verifier_key, read_unsigned, verify

    note = _read_text(path)
    if key is None:
        return read_unsigned(note)
    text = key if "+" in key and not Path(key).exists() else _read_text(Path(key))
    name, public = parse_verifier_key(text)
    found = verify(note, public, name=name)
    if found.origin != name:
        raise Refused(f"the key is of {name}, the checkpoint of {found.origin}")
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("the file cannot be read", where=str(path)) from error


def _write(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(text)
        unfinished.replace(path)
    except OSError as error:
        raise BadInput(f"the file cannot be written: {error.strerror}", where=str(path)) from error
