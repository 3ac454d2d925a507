"""Founding, proposing and deciding on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import constraint_name, transact
from kernel.errors import BadInput
from kernel.events import list_history
from kernel.money import Asset
from kernel.states import trigger_name, trigger_statements
from registry import queries
from registry.changes import approve, found, propose, reject
from registry.decisions import REJECT
from registry.errors import AlreadyFounded, ChangeRefused, NotAuthorised, UnknownRecord
from registry.model import (
    PROPOSAL_STATES,
    Chain,
    ChainAsset,
    Party,
    PartyKind,
    Proposal,
    ProposalState,
    Record,
    RecordKind,
    Role,
    Versioned,
    Wallet,
    WalletPurpose,
)
from registry.records import record_id, to_content
from registry.store import CHANGEABLE
from registry.testing import (
    DEMO_OPERATORS,
    TOKEN,
    XPUBS,
    change,
    demo_founding,
    operator,
    sign_decision,
)

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
BTC = Asset("BTC", 8)
T = TypeVar("T")


@pytest.fixture
async def founded(engine: AsyncEngine) -> AsyncEngine:
    await transact(engine, lambda conn: found(conn, demo_founding(), now=NOW))
    return engine


async def proposed(engine: AsyncEngine, record: Record, *, by: str = "ada") -> Proposal:
    return await transact(
        engine, lambda conn: propose(conn, record, by=by, reason="wanted", now=NOW)
    )


async def approved(
    engine: AsyncEngine, proposal: Proposal, *, by: str = "ben", signature: bytes | None = None
) -> Versioned:
    signed = sign_decision(proposal, by) if signature is None else signature
    return await transact(
        engine, lambda conn: approve(conn, proposal.id, by=by, signature=signed, now=LATER)
    )


async def read(engine: AsyncEngine, query: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    async with engine.connect() as conn:
        return await query(conn)


async def test_everything_that_was_founded_can_be_read(founded: AsyncEngine) -> None:
    founding = demo_founding()
    async with founded.connect() as conn:
        assert await queries.list_entities(conn) == list(founding.entities)
        assert await queries.list_assets(conn) == list(founding.assets)
        assert await queries.list_chains(conn) == list(founding.chains)
        assert await queries.list_chain_assets(conn, "evm") == list(founding.chain_assets)
        assert await queries.list_parties(conn) == list(founding.parties)
        assert await queries.list_operators(conn) == list(founding.operators)
        assert set(await queries.list_wallets(conn, "evm")) == set(founding.wallets)
        assert await queries.get_entity(conn, "causeway-desk") == founding.entities[0]
        assert await queries.get_asset(conn, "USDT") == Asset("USDT", 6)
        assert await queries.get_chain(conn, "evm") == founding.chains[0]
        assert await queries.get_chain_asset(conn, "evm", "USDT") == founding.chain_assets[1]
        assert await queries.get_party(conn, "acme") == founding.parties[0]
        assert await queries.get_operator(conn, "ada") == founding.operators[0]
        assert await queries.get_wallet(conn, "house-hot") == founding.wallets[2]
        assert len(await queries.list_parties(conn, PartyKind.CLIENT)) == 2


async def test_a_contract_is_the_only_name_of_a_token(founded: AsyncEngine) -> None:
    async with founded.connect() as conn:
        token = await queries.find_chain_asset_by_contract(conn, "evm", TOKEN)
        coin = await queries.find_chain_asset_by_contract(conn, "evm", None)
        fake = await queries.find_chain_asset_by_contract(conn, "evm", "0x" + "ab" * 20)
        assert (token and token.asset, coin and coin.asset, fake) == ("USDT", "ETH", None)


async def test_what_does_not_exist_is_refused_by_name(founded: AsyncEngine) -> None:
    async with founded.connect() as conn:
        with pytest.raises(UnknownRecord, match="no chain asset 'evm:DOGE'"):
            await queries.get_chain_asset(conn, "evm", "DOGE")
        with pytest.raises(UnknownRecord):
            await queries.list_revisions(conn, RecordKind.ASSET, "DOGE")


async def test_a_database_is_founded_once(founded: AsyncEngine) -> None:
    with pytest.raises(AlreadyFounded, match="founded already"):
        await transact(founded, lambda conn: found(conn, demo_founding(), now=LATER))


async def test_of_two_foundings_at_once_one_is_refused(engine: AsyncEngine) -> None:
    async def attempt() -> bool:
        try:
            await transact(engine, lambda conn: found(conn, demo_founding(), now=NOW))
        except AlreadyFounded:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(attempt()) for _ in range(2)]

    assert sorted(task.result() for task in tasks) == [False, True]


async def test_a_change_comes_into_force_with_the_second_signature(founded: AsyncEngine) -> None:
    proposal = await proposed(founded, BTC)
    with pytest.raises(UnknownRecord):
        await read(founded, lambda conn: queries.get_asset(conn, "BTC"))

    assert await approved(founded, proposal) == Versioned(BTC, 1, LATER)

    assert await read(founded, lambda conn: queries.get_asset(conn, "BTC")) == BTC
    stored = await read(founded, lambda conn: queries.get_proposal(conn, proposal.id))
    assert stored == replace(proposal, state=ProposalState.APPROVED)


async def test_every_version_and_every_actor_is_kept(founded: AsyncEngine) -> None:
    acme = Party("acme", PartyKind.COUNTERPARTY, "causeway-desk")
    proposal = await proposed(founded, acme)
    await approved(founded, proposal)

    async with founded.connect() as conn:
        revisions = await queries.list_revisions(conn, RecordKind.PARTY, "acme")
        assert [(r.version, r.proposal_id, r.content["kind"]) for r in revisions] == [
            (1, None, "client"),
            (2, proposal.id, "counterparty"),
        ]
        record = await list_history(conn, "registry.party", record_id(RecordKind.PARTY, "acme"))
        assert [(e.version, e.name, e.actor, e.reason) for e in record] == [
            (1, "RecordRegistered", "system:founding", "founding"),
            (2, "RecordChanged", "ben", "wanted"),
        ]
        steps = await list_history(conn, "registry.proposal", proposal.id)
        assert [(e.name, e.actor, e.from_state, e.to_state) for e in steps] == [
            ("ChangeProposed", "ada", None, "proposed"),
            ("ChangeApproved", "ben", "proposed", "approved"),
        ]


async def test_one_person_is_not_enough(founded: AsyncEngine) -> None:
    proposal = await proposed(founded, BTC)

    with pytest.raises(NotAuthorised, match="ada proposed this change"):
        await approved(founded, proposal, by="ada")
    with pytest.raises(NotAuthorised, match="signature"):
        await approved(founded, proposal, signature=sign_decision(proposal, "ada"))
    with pytest.raises(NotAuthorised, match="cleo is not admin"):
        await approved(founded, proposal, by="cleo")
    with pytest.raises(UnknownRecord, match="no operator 'zoe'"):
        await approved(founded, proposal, by="zoe")


async def test_the_database_itself_refuses_one_person(founded: AsyncEngine) -> None:
    proposal = await proposed(founded, BTC)
    statement = text(
        "INSERT INTO registry.approval VALUES (:id, 'ada', 'ada', true, '\\x00', '', now())"
    )
    async with founded.connect() as conn:
        with pytest.raises(DBAPIError) as refused:
            await conn.execute(statement, {"id": proposal.id})
    assert constraint_name(refused.value) == "ck_approval_four_eyes"


async def test_a_rejected_change_never_comes_into_force(founded: AsyncEngine) -> None:
    proposal = await proposed(founded, BTC)
    signature = sign_decision(proposal, "ben", REJECT)
    await transact(
        founded,
        lambda conn: reject(
            conn, proposal.id, by="ben", signature=signature, reason="not yet", now=LATER
        ),
    )

    with pytest.raises(ChangeRefused, match="already rejected"):
        await approved(founded, proposal)
    steps = await read(founded, lambda conn: list_history(conn, "registry.proposal", proposal.id))
    assert [(e.name, e.reason) for e in steps][1:] == [("ChangeRejected", "not yet")]


async def test_of_two_proposals_for_one_version_the_second_is_overtaken(
    founded: AsyncEngine,
) -> None:
    one = await proposed(founded, Party("acme", PartyKind.COUNTERPARTY, "causeway-desk"))
    other = await proposed(founded, Party("acme", PartyKind.VENUE, "causeway-desk"))
    await approved(founded, one)

    with pytest.raises(ChangeRefused, match="at version 2"):
        await approved(founded, other)


async def test_two_approvals_at_once_put_it_in_force_once(founded: AsyncEngine) -> None:
    third = operator("eve", Role.ADMIN)
    await transact(founded, lambda conn: change(conn, third, now=NOW))
    proposal = await proposed(founded, BTC)

    async def attempt(by: str) -> bool:
        try:
            await approved(founded, proposal, by=by)
        except ChangeRefused:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(attempt(by)) for by in ("ben", "eve")]
    assert sorted(task.result() for task in tasks) == [False, True]
    revisions = await read(
        founded, lambda conn: queries.list_revisions(conn, RecordKind.ASSET, "BTC")
    )
    assert len(revisions) == 1


async def test_two_changes_at_once_never_leave_one_administrator(founded: AsyncEngine) -> None:
    third = operator("eve", Role.ADMIN)
    await transact(founded, lambda conn: change(conn, third, now=NOW))
    ada, ben = (replace(o, active=False) for o in DEMO_OPERATORS[:2])
    of_ada, of_ben = await proposed(founded, ada, by="ben"), await proposed(founded, ben)

    async with founded.connect() as first:
        transaction = await first.begin()
        signature = sign_decision(of_ada, "eve")
        await approve(first, of_ada.id, by="eve", signature=signature, now=LATER)
        second = asyncio.ensure_future(approved(founded, of_ben, by="eve"))  # noqa: TID251  it has to wait
        done, _ = await asyncio.wait({second}, timeout=0.3)
        assert not done
        await transaction.commit()
        with pytest.raises((ChangeRefused, NotAuthorised)):
            await second

    operators = await read(founded, queries.list_operators)
    assert sum(o.may_decide for o in operators) == 2


async def test_a_revoked_operator_decides_nothing_more(founded: AsyncEngine) -> None:
    third = operator("eve", Role.ADMIN)
    await transact(founded, lambda conn: change(conn, third, now=NOW))
    proposal = await proposed(founded, BTC)
    ben = replace(DEMO_OPERATORS[1], active=False)
    await transact(founded, lambda conn: change(conn, ben, now=NOW, second="eve"))

    with pytest.raises(NotAuthorised, match="ben is not active"):
        await approved(founded, proposal)
    assert (await approved(founded, proposal, by="eve")).version == 1


async def test_roles_are_replaced_as_a_whole(founded: AsyncEngine) -> None:
    dan = replace(DEMO_OPERATORS[3], roles=frozenset({Role.FINANCE}))
    await transact(founded, lambda conn: change(conn, dan, now=LATER))

    assert await read(founded, lambda conn: queries.get_operator(conn, "dan")) == dan


CONFLICTS: list[tuple[Record, str]] = [
    (replace(operator("eve"), public_key=DEMO_OPERATORS[0].public_key), "has that key"),
    (Party("dove", PartyKind.CLIENT, "nowhere"), "no such legal entity"),
    (ChainAsset("evm:BTC", "evm", "0x" + "22" * 20, 8, "BTC"), "no such asset"),
    (
        Wallet("second", "evm", "house", WalletPurpose.HOT, XPUBS[0], "m/44'/60'/7'"),
        "that extended public key",
    ),
    (
        Wallet("segregated", "evm", "client:nobody", WalletPurpose.DEPOSIT, "x" * 111, "m/0'"),
        "no such client",
    ),
]


@pytest.mark.parametrize(("record", "message"), CONFLICTS)
async def test_a_conflict_with_another_record_is_told_in_words(
    founded: AsyncEngine, record: Record, message: str
) -> None:
    proposal = await proposed(founded, record)

    with pytest.raises(ChangeRefused, match=message):
        await approved(founded, proposal)


async def test_one_contract_is_one_asset(founded: AsyncEngine) -> None:
    await transact(founded, lambda conn: change(conn, BTC, now=NOW))
    twice = await proposed(founded, ChainAsset("evm:BTC", "evm", TOKEN, 8, "BTC"))
    with pytest.raises(ChangeRefused, match="with that contract already"):
        await approved(founded, twice)


async def test_only_the_chains_own_coin_has_no_contract(founded: AsyncEngine) -> None:
    """Otherwise ether would be booked as bitcoin."""
    await transact(founded, lambda conn: change(conn, BTC, now=NOW))
    with pytest.raises(ChangeRefused, match="coin of evm is ETH"):
        await proposed(founded, ChainAsset("evm:BTC", "evm", None, 8, "BTC"))


async def test_a_token_is_not_registered_as_the_chains_own_coin(engine: AsyncEngine) -> None:
    good = demo_founding()
    token = replace(good.chain_assets[0], contract="0x" + "22" * 20)
    with pytest.raises(ChangeRefused, match="coin of evm is ETH"):
        await transact(
            engine, lambda conn: found(conn, replace(good, chain_assets=(token,)), now=NOW)
        )


@pytest.mark.parametrize(
    "contract", [TOKEN.lower(), "0x" + TOKEN[2:].upper(), TOKEN.swapcase().replace("X", "x", 1)]
)
async def test_a_contract_in_another_spelling_would_never_be_seen_in_a_block(
    founded: AsyncEngine, contract: str
) -> None:
    await transact(founded, lambda conn: change(conn, BTC, now=NOW))
    with pytest.raises(ChangeRefused, match="EIP-55"):
        await proposed(founded, ChainAsset("evm:BTC", "evm", contract, 8, "BTC"))


async def test_a_founding_is_held_to_the_same_spelling(engine: AsyncEngine) -> None:
    with pytest.raises(ChangeRefused, match="EIP-55"):
        await transact(
            engine, lambda conn: found(conn, demo_founding(token=TOKEN.lower()), now=NOW)
        )


async def test_a_coin_with_more_places_than_its_asset_is_refused_and_a_token_is_not(
    founded: AsyncEngine,
) -> None:
    await transact(founded, lambda conn: change(conn, BTC, now=NOW))
    side = Chain("side", "evm", 77, "BTC")
    await transact(founded, lambda conn: change(conn, side, now=NOW))
    with pytest.raises(ChangeRefused, match="could not be booked"):
        await proposed(founded, ChainAsset("side:BTC", "side", None, 9, "BTC"))
    await proposed(founded, ChainAsset("side:BTC", "side", None, 8, "BTC"))
    await proposed(founded, ChainAsset("evm:BTC", "evm", "0x" + "22" * 20, 9, "BTC"))


@pytest.mark.parametrize("reason", ["", "  "])
async def test_a_change_has_a_reason(founded: AsyncEngine, reason: str) -> None:
    with pytest.raises(BadInput, match="reason"):
        await transact(founded, lambda conn: propose(conn, BTC, by="ada", reason=reason, now=NOW))


async def test_the_same_proposal_sent_twice_is_one(founded: AsyncEngine) -> None:
    assert await proposed(founded, BTC) == await proposed(founded, BTC)
    assert len(await read(founded, queries.list_proposals)) == 1


OWNERS_UPDATES = [
    ("asset", "scale = 8", "asset_fixed"),
    ("entity", "book = 9", "entity_fixed"),
    ("chain", "network_id = 1", "chain_fixed"),
    ("chain_asset", "decimals = 1", "chain_asset_fixed"),
    ("wallet", "owner = 'client', owner_party = NULL, version = version + 1", "wallet_fixed"),
    ("asset", "version = version", "asset_version"),
    ("revision", "version = 5", "revision_kept"),
    ("genesis", "founded_at = now()", "genesis_kept"),
]


@pytest.mark.parametrize(("table", "assignment", "constraint"), OWNERS_UPDATES)
async def test_even_the_owner_of_the_schema_cannot_change_what_is_fixed(
    founded: AsyncEngine, owner_engine: AsyncEngine, table: str, assignment: str, constraint: str
) -> None:
    where = "WHERE owner = 'house'" if table == "wallet" else ""
    statement = f"UPDATE registry.{table} SET {assignment} {where}"  # noqa: S608  the table above
    async with owner_engine.connect() as conn:
        with pytest.raises(DBAPIError) as refused:
            await conn.execute(text(statement))
    assert constraint_name(refused.value) == constraint


async def test_the_runtime_role_may_change_only_what_may_change(founded: AsyncEngine) -> None:
    rows = await read(
        founded,
        lambda conn: conn.execute(
            text(
                "SELECT table_name, column_name FROM information_schema.column_privileges "
                "WHERE table_schema = 'registry' AND privilege_type = 'UPDATE' "
                "AND grantee = 'causeway_app'"
            )
        ),
    )
    granted: dict[str, set[str]] = {}
    for table, column in rows:
        granted.setdefault(table, set()).add(column)

    expected = {str(kind): set(columns) for kind, columns in CHANGEABLE.items()}
    assert granted == expected | {"proposal": {"state"}}


async def test_the_trigger_has_the_edges_of_the_model(owner_engine: AsyncEngine) -> None:
    function, _ = trigger_statements(PROPOSAL_STATES)
    source = await read(
        owner_engine,
        lambda conn: conn.scalar(
            text("SELECT prosrc FROM pg_proc WHERE proname = :name"),
            {"name": trigger_name(PROPOSAL_STATES)},
        ),
    )
    assert source is not None
    assert source in function


def test_the_content_of_an_operator_is_plain_json() -> None:
    assert to_content(DEMO_OPERATORS[0])["roles"] == ["admin", "treasurer"]


POINT = "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
TOKEN_WALLET = Wallet(
    "vault", "evm", "house", WalletPurpose.HOT, token_key="hot", token_public_key=POINT
)
SHARED = Wallet(
    *("cold", "btc", "house", WalletPurpose.SETTLEMENT),
    account_path="m/48'/0'/0'/2'",
    cosigners=tuple(sorted(XPUBS)),
    required=2,
)
BITCOIN = Chain("btc", "bitcoin", 0xFABFB5DA, "BTC")


async def test_keys_in_a_token_and_keys_of_several_are_registered_by_two_people(
    founded: AsyncEngine,
) -> None:
    for record in (BTC, BITCOIN, TOKEN_WALLET, SHARED):
        await approved(founded, await proposed(founded, record))

    assert TOKEN_WALLET in await read(founded, lambda conn: queries.list_wallets(conn, "evm"))
    assert await read(founded, lambda conn: queries.list_wallets(conn, "btc")) == [SHARED]
    retired = replace(TOKEN_WALLET, purpose=WalletPurpose.SETTLEMENT)
    assert (await approved(founded, await proposed(founded, retired))).version == 2


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (replace(TOKEN_WALLET, code="other", token_public_key="03" + POINT[2:]), "token's key"),
        (replace(TOKEN_WALLET, code="other", token_key="cold"), "that public key"),
        (replace(SHARED, code="other"), "those cosigners"),
    ],
)
async def test_the_same_keys_are_one_wallet(
    founded: AsyncEngine, second: Wallet, message: str
) -> None:
    for record in (BTC, BITCOIN, TOKEN_WALLET, SHARED):
        await approved(founded, await proposed(founded, record))
    proposal = await proposed(founded, second)

    with pytest.raises(ChangeRefused, match=message):
        await approved(founded, proposal)


async def test_several_keys_are_proposed_for_bitcoin_only(founded: AsyncEngine) -> None:
    with pytest.raises(ChangeRefused, match="of kind evm"):
        await proposed(founded, replace(SHARED, chain="evm"))


async def test_the_database_itself_wants_one_place_of_the_keys(founded: AsyncEngine) -> None:
    statement = (
        "INSERT INTO registry.wallet (code, chain, owner, purpose, account_xpub, account_path, "
        "token_key, token_public_key, cosigners, required, version, valid_from) VALUES "
        "('vault', 'evm', 'house', 'hot', 'xpub', '', 'hot', '02', '{}', 0, 1, now())"
    )
    async with founded.connect() as conn:
        with pytest.raises(DBAPIError) as refused:
            await conn.execute(text(statement))
    assert constraint_name(refused.value) == "ck_wallet_keys"
