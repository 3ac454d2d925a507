"""How far a book has been verified, kept in a file, so that the next check reads only what is new.

What such a check proves: the journal still begins with the tree that was verified (its frontier is in
the file, and every later root is built on it); every record since; and every row that may change. What
it does not: that rows of the journal from before are still what they were. Whoever keeps the file
vouches for it: its last line is a checksum against accidents, not a signature.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kernel.errors import BadInput
from ledger.audit_rows import AuditedAccount

if TYPE_CHECKING:
    from ledger.verification import Check

VERSION: Final = 1
REMEDY: Final = "Remove the file to verify from the beginning"

_COLUMNS: Final = (
    "credit_limit",
    "debits_pending",
    "debits_posted",
    "credits_pending",
    "credits_posted",
    "version",
    "sequence",
)


def save(path: Path, check: Check) -> None:
    """Write how far *check* has come, at the end of a chunk; the file appears whole or not at all."""
    digest = hashlib.sha256()
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as stream:
            for line in _lines(check):
                digest.update(line)
                stream.write(line)
            stream.write(digest.hexdigest().encode() + b"\n")
        unfinished.replace(path)
    except OSError as error:
        raise BadInput(f"the state cannot be written: {error.strerror}", where=str(path)) from error


def load(path: Path, check: Check) -> int:
    """Let *check* begin where the file says; return how many records that are. 0: no file yet.

    Raises:
        BadInput: the file is of another book, or not whole.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise BadInput(f"the state cannot be read: {error.strerror}", where=str(path)) from error
    whole = b"".join(lines[:-1])
    if not lines or lines[-1].strip().decode(errors="replace") != hashlib.sha256(whole).hexdigest():
        raise BadInput("the state is not whole", where=str(path), remedy=REMEDY)
    header = json.loads(lines[0])
    if header["version"] != VERSION or header["book"] != check.reader.book:
        raise BadInput("the state is of another book", where=str(path), remedy=REMEDY)
    if header["size"] % check.size:
        raise BadInput("the state is of another chunk size", where=str(path), remedy=REMEDY)
    _restore(check, header)
    for line in lines[1:-1]:
        account = _account(str(check.reader.book), json.loads(line))
        check.replay.accounts[account.key.encode()] = account
        check.replay.names.add((account.path, account.asset))
    return int(header["size"])


def _lines(check: Check) -> Iterator[bytes]:
    replay, tree = check.replay, check.tree
    header = {
        "version": VERSION,
        "book": check.reader.book,
        "size": tree.size,
        "height": check.height,
        "blocked": check.blocked,
        "block_time": check.block_time.decode(),
        "peaks": [peak.hex() for peak in tree.peaks],
        "upper": [[item.hex() for item in row] for row in tree.upper],
        "now": replay.now.decode(),
        "times": [[sequence, at.decode()] for sequence, at in replay.times],
        "closed_through": replay.closed_through.decode(),
        "imported_through": replay.imported_through.decode(),
        "pending": replay.pending,
    }
    yield json.dumps(header).encode() + b"\n"
    for account in replay.accounts.values():
        fields = [
            account.key,
            account.path,
            account.asset,
            account.debits_capped,
            account.credits_capped,
            account.effective_at.decode(),
            account.frozen,
            account.closed,
            *(getattr(account, name) for name in _COLUMNS),
        ]
        yield json.dumps(fields).encode() + b"\n"


def _restore(check: Check, header: dict[str, Any]) -> None:
    replay, tree = check.replay, check.tree
    tree.size = header["size"]
    tree.peaks = [bytes.fromhex(peak) for peak in header["peaks"]]
    tree.upper = [[bytes.fromhex(item) for item in row] for row in header["upper"]]
    check.height, check.blocked = header["height"], header["blocked"]
    check.block_time = header["block_time"].encode()
    replay.expected = header["size"] + 1
    replay.now = header["now"].encode()
    replay.ending = b"\t\t" + replay.now
    replay.times = [(sequence, at.encode()) for sequence, at in header["times"]]
    replay.closed_through = header["closed_through"].encode()
    replay.imported_through = header["imported_through"].encode()
    replay.pending = header["pending"]


def _account(book: str, fields: list[Any]) -> AuditedAccount:
    key, path, asset, debits_capped, credits_capped, effective_at, frozen, closed, *columns = fields
    flags = ("d" if debits_capped else "") + ("c" if credits_capped else "")
    account = AuditedAccount(book, key, path, asset, flags, effective_at.encode())
    account.stand(frozen=frozen, closed=closed)
    for name, value in zip(_COLUMNS, columns, strict=True):
        setattr(account, name, value)
    return account
