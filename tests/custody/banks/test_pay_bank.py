"""Payments through a whole bank: files over HTTP or a folder, its reports and statements back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from banks.folder_gateway import FolderGateway
from banks.http_gateway import HttpGateway
from banks.simulator.testing import BankThread
from banks.submission import Outcome
from custody.banks.importing import ImportReport, import_file
from custody.banks.payment_model import FileState, PaymentFile
from custody.banks.payment_release import RETRY_MAX
from custody.payout_model import PayoutState
from tests.custody.banks.pay_world import CLIENTS, World

ASKED_MAX = 20


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[BankThread]:
    with BankThread(tmp_path, "--account", f"{CLIENTS.iban}:EUR:5000") as running:
        yield running


def hang(bank: BankThread, kind: str) -> None:
    bank.control("fault", kind=kind, seconds=30.0)


async def submitted_after(world: World, file: PaymentFile) -> bool:
    world.clock.advance(RETRY_MAX)
    await world.advance()
    return (await world.file(file.id)).state is FileState.SUBMITTED


async def hear(world: World, bank: BankThread) -> None:
    """Take everything in that the bank has sent, the oldest first."""
    for name, raw in bank.files().items():

        async def take(conn: AsyncConnection, name: str = name, raw: bytes = raw) -> ImportReport:
            return await import_file(conn, raw, name=name, now=world.now)

        if b"pain.002" in raw:
            await world.report(raw)
        else:
            await world.run(take)


async def test_a_payout_is_paid_by_the_bank_and_final_with_its_statement(
    world: World, bank: BankThread
) -> None:
    world.door = HttpGateway(bank.url)
    payout, file = await world.submitted()
    assert file.state is FileState.SUBMITTED
    bank.control("end-of-day", days=1)
    await hear(world, bank)
    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    assert (await world.file(file.id)).state is FileState.CLOSED
    assert (await world.books())["bank:client-eur"] == (489_950, 0, 0)
    assert [item["balance"] for item in bank.state()["accounts"]] == [489_950]


@pytest.mark.parametrize(
    "fault", ["hang_before_accept", "hang_after_accept", "status_503", "status_503_after_accept"]
)
async def test_whatever_the_door_does_the_bank_pays_once(
    world: World, bank: BankThread, fault: str
) -> None:
    hang(bank, fault)
    world.door = HttpGateway(bank.url, timeout_s=0.5)
    payout, file = await world.submitted()
    assert file.state is FileState.UNKNOWN
    # A machine that is busy may not answer in time either: then it is asked once more.
    for _ in range(ASKED_MAX):
        if await submitted_after(world, file):
            break
    else:
        pytest.fail("the door is never heard")
    bank.control("end-of-day", days=1)
    await hear(world, bank)
    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    assert list(bank.state()["paid"].values()) == [1]


async def test_what_the_bank_refuses_is_given_back_and_what_it_returns_is_owed_again(
    world: World, bank: BankThread
) -> None:
    bank.control("fault", kind="refused")
    bank.control("fault", kind="returned")
    world.door = HttpGateway(bank.url)
    other = await world.approved(client_ref="w-2", amount=300)
    payout, _ = await world.submitted()
    for _ in range(3):
        bank.control("end-of-day", days=1)
    await hear(world, bank)
    states = {(await world.get(item)).state for item in (payout, other)}
    assert states == {PayoutState.REFUSED, PayoutState.CONFIRMED}
    books = await world.books()
    assert books["client:acme"] == (500_000, 0, 0)
    assert books["bank:client-eur"] == (500_000, 0, 0)
    assert "in-flight:bank" not in books


async def test_a_folder_holds_a_file_whole_once_and_never_two_of_one_name(tmp_path: Path) -> None:
    door = FolderGateway(tmp_path)
    assert (await door.submit("CW1.xml", b"one")).outcome is Outcome.TAKEN
    assert (await door.submit("CW1.xml", b"one")).outcome is Outcome.TAKEN
    assert (await door.submit("CW1.xml", b"two")).outcome is Outcome.REFUSED
    assert (await door.submit("../CW2.xml", b"two")).outcome is Outcome.REFUSED
    assert _contents(tmp_path) == {"CW1.xml": b"one"}
    gone = FolderGateway(tmp_path / "gone")
    assert (await gone.submit("CW1.xml", b"one")).outcome is Outcome.UNKNOWN


async def test_a_file_that_lies_there_is_not_touched_again_whatever_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = FolderGateway(tmp_path)
    with monkeypatch.context() as killed:
        # Linked, and killed before its own name was taken away.
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        assert (await door.submit("CW1.xml", b"one")).outcome is Outcome.TAKEN
    before = _facts(tmp_path / "CW1.xml")
    assert before[0] == b"one"
    assert (await door.submit("CW1.xml", b"two")).outcome is Outcome.REFUSED
    assert _facts(tmp_path / "CW1.xml") == before


def _facts(path: Path) -> tuple[bytes, int]:
    """Content, and when it was written last."""
    return path.read_bytes(), path.stat().st_mtime_ns


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_a_door_that_is_shut_says_nothing() -> None:
    said = await HttpGateway("http://127.0.0.1:9", timeout_s=2.0).submit("CW1.xml", b"one")
    assert said.outcome is Outcome.UNKNOWN
