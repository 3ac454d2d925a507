"""``causeway custody cold``: from a request to a block of a real node, signed by that node's wallets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.psbt import Psbt, PsbtOutput, create, from_base64, to_base64
from chain.bitcoin.transactions import Input, Outpoint, Transaction
from chain.simulators.bitcoind import Bitcoind
from custody.bitcoin.testing import CHAIN, POOL, with_bitcoin
from custody.payout_model import PayoutState as P
from custody.rebalance.rules import approve_rules, propose_rules, rules_bytes
from kernel.clock import SystemClock
from registry.model import Founding, Wallet, WalletPurpose
from registry.testing import demo_founding, operator_keypair
from tests.app.cli.conftest import Answer, Cli
from tests.chain.bitcoin.conftest import bitcoind, bitcoind_binary
from tests.custody.bitcoin.cold_people import (
    ANN,
    CLEO,
    Person,
    descriptors,
    load_wallet,
    shared_wallet,
    signed_by,
    single_wallet,
)
from tests.custody.bitcoin.spend_world import BTC, PAYEES
from tests.custody.bitcoin.test_spend_real import RealSpendWorld, make_real_world

SHARED = replace(shared_wallet(POOL, "client"), purpose=WalletPurpose.DEPOSIT)
SINGLE = replace(single_wallet(POOL), owner="client", purpose=WalletPurpose.DEPOSIT)
BANDS = {
    "window_s": 600,
    "lifetime_s": 7200,
    "bands": [
        {
            "wallet": POOL,
            "asset": "BTC",
            "tier": "cold",
            "minimum": "0",
            "target": "1",
            "maximum": "1000",
        }
    ],
}
__all__ = ["bitcoind", "bitcoind_binary"]
By = Callable[[str], tuple[str, ...]]


def founding(vault: Wallet) -> Founding:
    made = with_bitcoin(demo_founding())
    return replace(
        made, wallets=tuple(vault if item.code == POOL else item for item in made.wallets)
    )


@pytest.fixture(params=[SHARED, SINGLE], ids=["two of three", "one key, cold by its band"])
def vault(request: pytest.FixtureRequest) -> Wallet:
    return request.param  # type: ignore[no-any-return]  # a fixture's parameter has no type


@pytest.fixture
async def world(
    engine: AsyncEngine, environment: None, tmp_path: Path, bitcoind: Bitcoind, vault: Wallet
) -> AsyncIterator[RealSpendWorld]:
    began = SystemClock().now()
    async with make_real_world(
        engine, tmp_path, bitcoind, began=began, founding=founding(vault)
    ) as made:
        if not vault.cosigners:
            await made.run(lambda conn: put_in_band(conn, made))
        yield made


async def put_in_band(conn: AsyncConnection, world: RealSpendWorld) -> None:
    now = world.clock.now()
    row = await propose_rules(conn, json.dumps(BANDS), chains=[CHAIN, "evm"], by="ada", now=now)
    signature = operator_keypair("ben").sign(rules_bytes(row))
    await approve_rules(conn, row.rules.version, by="ben", signature=signature, now=now)


async def call(cli: Cli, *arguments: str) -> Answer:
    return await asyncio.to_thread(cli, "custody", *arguments)


async def ask(cli: Cli, as_: By, reference: str = "w-1") -> str:
    """Request a payout and have it approved, on the command line."""
    asked = ("payout", "0.5 BTC", "--claim", "client:acme", "--to", PAYEES[0], "--from", POOL)
    made = await call(cli, *asked, "--ref", reference, *as_("dan"), "--json")
    assert made.code == 0, made.err
    payout: str = made.json["id"]
    done = await call(cli, "approve", payout, *as_("ben"), "--json")
    assert done.code == 0, done.err
    return payout


def content(file: Path) -> str:
    return file.read_text().strip()


async def sign_on(node: Bitcoind, vault: Wallet, person: Person, name: str, meant: Path) -> Path:
    """The file as a wallet of the node gives it back, which has this person's key."""
    door = await load_wallet(node, name, descriptors(vault, person))
    done = await door("walletprocesspsbt", content(meant), True, "ALL", True, False)
    signed = meant.with_name(f"{name}.psbt")
    signed.write_text(done["psbt"])
    return signed


async def actors(world: RealSpendWorld) -> set[tuple[str, str]]:
    """Who did what by hand."""
    statement = text("SELECT name, actor FROM kernel.history WHERE entity_type LIKE 'spend%'")
    async with world.engine.connect() as conn:
        rows = (await conn.execute(statement)).all()
    return {(name, actor) for name, actor in rows if not actor.startswith("system:")}


async def test_a_payout_of_a_cold_wallet_goes_from_a_request_to_a_block(
    cli: Cli,
    as_: By,
    world: RealSpendWorld,
    vault: Wallet,
    bitcoind: Bitcoind,
    tmp_path: Path,
) -> None:
    payout, meant = await ask(cli, as_), tmp_path / "vault.psbt"
    world.clock.at = SystemClock().now()
    report = await world.advance()
    assert report.signed == []
    waiting = await call(cli, "cold", "list", "--json")
    assert [row["wallet"] for row in waiting.json] == [POOL]

    away = await call(cli, "cold", "export", payout, "--to", str(meant), *as_("dan"), "--json")
    assert away.code == 0, away.err
    assert away.json["leaves"] == f"{BTC // 2} to {PAYEES[0]}"
    assert away.json["signatures"] == f"0 of {vault.required or 1}"
    twice = await call(cli, "cold", "export", payout, "--to", str(meant), *as_("dan"))
    assert (twice.code, "there is a file already" in twice.err) == (2, True)

    people = [ANN, CLEO][: vault.required or 1]
    files = [
        await sign_on(bitcoind, vault, person, f"p{number}", meant)
        for number, person in enumerate(people)
    ]
    seen = await call(cli, "cold", "inspect", str(files[0]), "--wallet", POOL, "--json")
    assert seen.json["signatures"] == f"1 of {vault.required or 1}"
    assert (seen.json["not the wallet's"], seen.json["fee"]) == ("nothing", away.json["fee"])

    back = ("cold", "import", payout, *(str(file) for file in files), *as_("ada"), "--json")
    rehearsed = await call(cli, *back, "--dry-run")
    assert rehearsed.code == 0, rehearsed.err
    assert (await world.only()).current.raw is None
    taken = await call(cli, *back)
    assert taken.code == 0, taken.err
    assert taken.json["transaction"] == away.json["transaction"]
    assert (await call(cli, *back)).json == taken.json, "again changes nothing"
    assert (await call(cli, "cold", "list", "--json")).json == []

    world.clock.at = SystemClock().now()  # commands have their own, and it has gone on
    await world.advance()
    assert await world.pool() == {taken.json["transaction"]}
    await world.mine(3)
    assert [item.state for item in await world.confirm()] == [P.CONFIRMED]
    await world.assert_exact()
    assert await actors(world) == {
        ("SpendAttemptGivenOut", "dan"),
        ("SpendAttemptSigned", "ada"),
        ("SpendSigned", "ada"),
    }


# What is not taken.


def with_change(psbt: Psbt, script: bytes) -> Psbt:
    """The file with its change at another script, which nothing claims to be the wallet's."""
    [place] = [n for n, item in enumerate(psbt.outputs) if item.derivations]
    outputs, known = list(psbt.transaction.outputs), list(psbt.outputs)
    outputs[place], known[place] = replace(outputs[place], script=script), PsbtOutput()
    return create(replace(psbt.transaction, outputs=tuple(outputs)), psbt.inputs, known)


def with_amount(psbt: Psbt, *, change: bool, more: int) -> Psbt:
    """The file with more for an output: what returns to us, or what leaves."""
    outputs = tuple(
        replace(item, amount=item.amount + more) if bool(known.derivations) is change else item
        for item, known in zip(psbt.transaction.outputs, psbt.outputs, strict=True)
    )
    return create(replace(psbt.transaction, outputs=outputs), psbt.inputs, psbt.outputs)


def with_coin(psbt: Psbt) -> Psbt:
    """The file that spends another coin."""
    first, *rest = psbt.transaction.inputs
    other = Input(Outpoint("ab" * 32, 1), first.sequence)
    spent = Transaction((other, *rest), psbt.transaction.outputs)
    return create(spent, psbt.inputs, psbt.outputs)


STRANGER = b"\x00\x14" + b"\x07" * 20
CHANGED: dict[str, tuple[Callable[[Psbt], Psbt], str]] = {
    "other payment": (lambda psbt: with_amount(psbt, change=False, more=1), "pays something else"),
    "other change": (lambda psbt: with_change(psbt, STRANGER), "pays something else"),
    "other fee": (lambda psbt: with_amount(psbt, change=True, more=-700), "pays something else"),
    "other coin": (with_coin, "spends other coins"),
    "other version": (
        lambda psbt: replace(psbt, transaction=replace(psbt.transaction, lock_time=9)),
        "has a lock time",
    ),
}


@pytest.mark.parametrize("vault", [SHARED], ids=["two of three"])
async def test_a_file_that_is_not_that_transaction_signed_is_refused_and_changes_nothing(
    cli: Cli, as_: By, world: RealSpendWorld, vault: Wallet, tmp_path: Path
) -> None:
    payout, meant = await ask(cli, as_), tmp_path / "vault.psbt"
    world.clock.at = SystemClock().now()
    await world.advance()
    given = ("cold", "export", payout, "--to", str(meant))
    somebody = await call(cli, *given, *as_("dan")[:3], as_("ada")[3])
    assert (somebody.code, "the key is not the one" in somebody.err) == (1, True)
    outsider = await call(cli, *given, *as_("cleo"))
    assert (outsider.code, "cleo" in outsider.err, meant.exists()) == (1, True, False)
    assert (await call(cli, *given, *as_("dan"))).code == 0
    out = from_base64(content(meant))
    before = (await world.only()).current

    def write(name: str, psbt: Psbt) -> str:
        file = tmp_path / f"{name}.psbt"
        file.write_text(to_base64(psbt))
        return str(file)

    async def bring(*files: str) -> Answer:
        return await call(cli, "cold", "import", payout, *files, *as_("ada"))

    for name, (change, words) in CHANGED.items():
        parts = signed_by(change(out), vault, [ANN, CLEO])
        answer = await bring(*(write(f"{name} {n}", part) for n, part in enumerate(parts)))
        assert (answer.code, words in " ".join(answer.err.split())) == (1, True), (
            name,
            answer.err,
        )
    one = signed_by(out, vault, [ANN])[0]
    for files, words in [
        ((write("nobody", out),), "0 of 2 signatures"),
        ((write("ann", one),), "1 of 2 signatures"),
        ((write("ann", one), write("ann again", one)), "1 of 2 signatures"),
    ]:
        answer = await bring(*files)
        assert (answer.code, words in " ".join(answer.err.split())) == (1, True), answer.err

    # What is rightly signed, but is the transaction of another payout.
    second = await ask(cli, as_, "w-2")
    world.clock.at = SystemClock().now()
    await world.advance()
    other = tmp_path / "other.psbt"
    away = await call(cli, "cold", "export", second, "--to", str(other), *as_("dan"))
    assert away.code == 0, away.err
    parts = signed_by(from_base64(content(other)), vault, [ANN, CLEO])
    answer = await bring(*(write(f"other {n}", part) for n, part in enumerate(parts)))
    assert (answer.code, "spends other coins" in answer.err) == (1, True), answer.err

    kept = ("cold", "import", payout, write("ann", one), *as_("cleo"))
    assert "cleo" in (await call(cli, *kept)).err
    for junk in (b"", b"psbt", b"\x00" * 40, b"cHNidP8="):
        (tmp_path / "junk.psbt").write_bytes(junk)
        assert (await bring(str(tmp_path / "junk.psbt"))).code in {1, 2}
    assert (await bring(str(tmp_path / "nowhere.psbt"))).code == 2
    now = next(item for item in await world.spends() if item.current.id == before.id)
    assert now.current == before
    assert await world.pool() == set()
    await world.assert_exact()
