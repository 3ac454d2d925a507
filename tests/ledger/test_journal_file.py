"""A journal as a file: exported, replayed without a database, every change of it found and named."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from ledger import merkle
from ledger.accounts import ensure_accounts
from ledger.checkpoint import Checkpoint, origin_of, parse_verifier_key, verifier_key
from ledger.errors import BookNotOpen
from ledger.journal_file import JournalHeader, export_journal, parse_header
from ledger.journal_verification import JournalVerified, verify_journal
from ledger.model import Transfer
from ledger.posting import post
from ledger.proofs import make_checkpoint
from ledger.queries import head
from ledger.scenarios import name_id

Forge = Callable[[list[str]], None]


@pytest.fixture
async def exported(busy: AsyncEngine, tmp_path: Path) -> tuple[Path, Checkpoint]:
    """The journal of a busy book, and the checkpoint over it."""
    await transact(
        busy, lambda conn: ensure_accounts(conn, 1, [("custody:w", "ETH"), ("suspense:x", "ETH")])
    )
    many = [
        Transfer(
            id=name_id(f"many-{n}"),
            debit="custody:w",
            credit="suspense:x",
            asset="ETH",
            amount=n,
            code="many",
        )
        for n in range(300)
    ]
    await transact(busy, lambda conn: post(conn, 1, many))
    path = tmp_path / "journal"
    await export_journal(busy, 1, path)
    async with busy.connect() as conn:
        origin = origin_of((await head(conn, 1)).entity, 1)
        return path, await make_checkpoint(conn, 1, origin=origin)


def test_an_exported_journal_comes_to_the_checkpoint(exported: tuple[Path, Checkpoint]) -> None:
    path, made = exported
    seen: list[tuple[int, int]] = []

    found = verify_journal(path, made, progress=lambda done, of: seen.append((done, of)))

    assert found.faults == []
    assert found.root == found.checkpoint_root == made.root
    assert found.records == made.size == len(path.read_text().splitlines()) - 1
    assert seen == [(made.size, made.size)]
    assert {total.asset for total in found.totals} == {"ETH", "USD"}
    for total in found.totals:
        assert total.debits == total.credits
        assert total.debits_pending == total.credits_pending


def test_anybody_can_make_the_root_from_the_lines(exported: tuple[Path, Checkpoint]) -> None:
    path, made = exported
    lines = path.read_bytes().split(b"\n")[1:-1]

    assert merkle.tree_hash([merkle.leaf_hash(line) for line in lines]) == made.root


async def test_a_checkpoint_of_fewer_records_is_enough(
    busy: AsyncEngine, exported: tuple[Path, Checkpoint]
) -> None:
    path, made = exported
    async with busy.connect() as conn:
        for size in (0, 1, 17, 256, made.size - 1):
            earlier = await make_checkpoint(conn, 1, origin=made.origin, size=size)
            assert verify_journal(path, earlier).faults == []
    longer = Checkpoint(made.origin, made.size + 1, made.root)
    assert [fault.table for fault in verify_journal(path, longer).faults] == ["checkpoint"]


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def find(lines: list[str], *parts: str) -> int:
    """The place of the first line that has these parts."""
    return next(at for at, line in enumerate(lines) if all(part in line for part in parts))


def swap(lines: list[str], at: int, field: int, value: str) -> None:
    fields = lines[at].split("\t")
    fields[field] = value
    lines[at] = "\t".join(fields)


def of(name: str, field: int, value: str) -> Forge:
    """Change a field of the transfer that the story calls *name*."""
    return lambda lines: swap(lines, find(lines, f"\t{name_id(name)}\t"), field, value)


def repeat(name: str, new_id: str) -> Forge:
    """Append a record once more, under an id and sequence number of its own."""

    def forge(lines: list[str]) -> None:
        copy = lines[find(lines, f"\t{name_id(name)}\t")]
        lines.append(copy)
        swap(lines, -1, 2, str(len(lines) - 1))
        swap(lines, -1, 3, str(name_id(new_id)))
        swap(lines, -1, 18, lines[-2].split("\t")[18])

    return forge


def drop(name: str) -> Forge:
    def forge(lines: list[str]) -> None:
        del lines[find(lines, f"\t{name_id(name)}\t")]

    return forge


FORGERIES: dict[str, tuple[Forge, str, str]] = {
    "a transfer is left out": (drop("m"), "sequence", "is missing"),
    "a hold is resolved twice": (repeat("p", "p2"), str(name_id("p2")), "no open hold"),
    "a transfer is reversed twice": (repeat("r", "r2"), str(name_id("r2")), "reversed already"),
    "an id is spent twice": (repeat("m", "many-7"), str(name_id("many-7")), "spent again"),
    "a transfer overdraws": (of("h", 8, "9" * 30), "client:a ETH, transfer", "is overdrawn"),
    "more is posted than held": (of("p", 8, "9" * 30), str(name_id("p")), "held by"),
    "another account is debited": (of("p", 6, "2"), str(name_id("p")), "on its accounts"),
    "an account is not there": (of("m", 6, "99"), str(name_id("m")), "no account 99"),
    "two assets in one transfer": (of("many-3", 6, "7"), str(name_id("many-3")), "on one side"),
    "one account on both sides": (of("a", 6, "1"), str(name_id("a")), "both sides"),
    "a reversal is not the reverse": (of("r", 8, "1"), str(name_id("r")), "not the reverse"),
    "an amount is below zero": (of("a", 8, "-5"), str(name_id("a")), "negative amount"),
    "an amount is no number": (of("a", 8, "five"), "sequence", "cannot be read"),
    "time goes back": (
        of("many-9", 18, "2026-01-01 00:00:00+00"),
        "sequence",
        "earlier than the record before",
    ),
    "a kind that is none": (of("many-9", 4, "7"), str(name_id("many-9")), "other fields"),
    "a hold is voided in part": (of("v", 8, "1"), str(name_id("v")), "resolves 1 of"),
    "a late resolution": (of("i", 13, "9000000000"), "sequence", "wrong side of its deadline"),
    "a record of no type": (
        lambda lines: swap(lines, 40, 0, "transfur"),
        "sequence 40",
        "no known type",
    ),
    "a record of another book": (of("a", 1, "2"), str(name_id("a")), "another book"),
    "a frozen account moves": (
        lambda lines: swap(
            lines,
            find(lines, f"\t{name_id('many-9')}\t"),
            7,
            lines[find(lines, "\topened\tclient:b")].split("\t")[3],
        ),
        str(name_id("many-9")),
        "moves on client:b ETH, frozen",
    ),
    "an account is opened twice": (
        lambda lines: swap(lines, find(lines, "\topened\tclient:b"), 3, "1"),
        "client:b",
        "out of turn",
    ),
    "an outcome that spends no id": (
        lambda lines: swap(lines, find(lines, "refusal\t"), 4, "exists"),
        str(name_id("x")),
        "does not spend",
    ),
}


def forged(path: Path, forge: Forge, claimed: Checkpoint | None) -> JournalVerified:
    lines = path.read_text().splitlines()
    forge(lines)
    fields = lines[0].split("\t")
    lines[0] = "\t".join([*fields[:4], str(len(lines) - 1)])
    path.write_text("\n".join(lines) + "\n")
    return verify_journal(path, claimed)


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_named_even_without_a_checkpoint(
    exported: tuple[Path, Checkpoint], name: str
) -> None:
    path, made = exported
    forge, key, what = FORGERIES[name]

    faults = forged(path, forge, made).faults

    assert any(key in fault.key and what in fault.what for fault in faults), faults
    assert any(fault.table == "checkpoint" for fault in faults) or "twice" in name
    assert any(fault.key.startswith("line ") for fault in faults) or "left out" in name


def test_a_change_that_only_the_tree_knows_is_found_by_the_checkpoint(
    exported: tuple[Path, Checkpoint],
) -> None:
    path, made = exported

    faults = forged(path, of("m", 15, "r-2"), made).faults

    assert [(fault.table, fault.what) for fault in faults] == [
        ("checkpoint", f"has another root than the first {made.size} records")
    ]


def test_a_fault_names_its_line(exported: tuple[Path, Checkpoint]) -> None:
    path, made = exported
    at = find(path.read_text().splitlines(), f"\t{name_id('m')}\t") + 1

    faults = forged(path, of("m", 6, "99"), made).faults

    assert any(fault.key.startswith(f"line {at}, {name_id('m')}") for fault in faults)


@pytest.mark.parametrize(
    "text",
    ["", "causeway-journal\t2\t1\te\t5\n", "causeway-journal\t1\tone\te\t5\n", "something else\n"],
)
def test_what_is_no_journal_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file"
    path.write_text(text)

    with pytest.raises(BadInput):
        verify_journal(path, None)


def test_a_file_that_was_cut_off_is_refused(exported: tuple[Path, Checkpoint]) -> None:
    path, made = exported
    whole = path.read_bytes()

    path.write_bytes(whole[:-10])
    with pytest.raises(BadInput, match="middle of a line"):
        verify_journal(path, made)
    path.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    assert {fault.table for fault in verify_journal(path, made).faults} == {"journal", "checkpoint"}


async def test_a_journal_that_cannot_be_written_leaves_nothing(
    busy: AsyncEngine, tmp_path: Path
) -> None:
    with pytest.raises(BookNotOpen):
        await export_journal(busy, 7, tmp_path / "journal")
    with pytest.raises(BadInput):
        await export_journal(busy, 1, tmp_path / "no" / "journal")

    assert names_in(tmp_path) == []


def test_a_header_is_read_as_written() -> None:
    header = JournalHeader(3, "house-1", 12)

    assert parse_header(header.line()) == header


def test_a_verifier_key_is_read_as_written() -> None:
    key = Ed25519PrivateKey.generate().public_key()
    text = verifier_key("house/book/1", key)

    name, read = parse_verifier_key(text)

    assert (name, read.public_bytes_raw()) == ("house/book/1", key.public_bytes_raw())
    for wrong in ("", "a+b", text.replace("house", "horse"), text[:-4]):
        with pytest.raises(BadInput):
            parse_verifier_key(wrong)


def test_a_verifier_key_and_a_signature_are_those_that_others_write() -> None:
    """The example of Go's golang.org/x/mod/sumdb/note, where signed notes come from."""
    text = (
        b"If you think cryptography is the answer to your problem,\n"
        b"then you don't know what your problem is.\n"
    )
    signed = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="

    name, key = parse_verifier_key(
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    )

    assert name == "PeterNeumann"
    assert base64.b64decode(signed)[:4].hex() == "c74f20a3"
    key.verify(base64.b64decode(signed)[4:], text)


def test_an_origin_can_name_a_key() -> None:
    assert origin_of("a house+co", 2) == "a%20house%2Bco/book/2"
