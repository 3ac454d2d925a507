"""Compliance as a queue: nothing without an answer, nothing let go by one, nothing leaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.keys.messages import recover_signer
from chain.simulators.testing import dev_account
from custody.compliance import decisions, ownership, people
from custody.compliance import store as compliance_store
from custody.compliance.address_list import AddressList
from custody.compliance.cases import (
    find_uncleared,
    list_cases,
    list_decisions,
    list_legal_holds,
    list_opinions,
    require_cleared,
)
from custody.compliance.model import (
    CASE_STATES,
    LEGAL_HOLD_STATES,
    PROOF_STATES,
    Answer,
    CaseState,
    LegalHold,
    ProofState,
    Question,
    Subject,
    Verdict,
)
from custody.compliance.screening import rescreen, screen_deposits, screen_payouts
from custody.compliance.sealing import SealingKey
from custody.compliance.travel_rule import TravelRule, find_missing
from custody.compliance.travel_rule_records import list_records, write_record
from custody.control_messages import ScopeKind
from custody.deposit_model import PENDING_STATES, DepositState
from custody.errors import NotPossible
from custody.freeze_model import Scope, freeze_bytes, thaw_bytes
from custody.freezes import close, derive_freeze_id, open_again
from custody.model import AddressPurpose
from custody.payout_model import Payout, PayoutRequest, PayoutState
from custody.payouts import get_payout, reject_payout, request_payout
from custody.testing import allow, set_policy
from kernel.db import constraint_name
from kernel.errors import BadInput, OutsideUnavailable, Refused
from kernel.events import list_history
from kernel.ids import derive_id
from kernel.states import StateTable, trigger_name, trigger_statements
from registry.errors import NotAuthorised
from registry.queries import get_operator
from registry.testing import operator_keypair
from tests.custody.house import BOOK, ETHER, OTHER, STRANGER, House

LISTED = AddressList.blocking(1, {STRANGER}, "stolen")
KEY = SealingKey(b"k" * 32)


@pytest.fixture
async def house(engine: AsyncEngine) -> House:
    return await House(engine).open()


@dataclass
class Provider:
    """Somebody elsewhere who screens, and what they answer."""

    verdict: Verdict = Verdict.UNKNOWN
    number: str = "1"
    away: bool = False
    asked: list[Question] = field(default_factory=list)

    @property
    def name(self) -> str:
        return "elsewhere"

    async def version(self) -> str:
        return self.number

    async def screen(self, questions: Sequence[Question]) -> Sequence[Answer]:
        if self.away:
            raise OutsideUnavailable("nobody answers")
        self.asked += questions
        return [Answer(self.verdict, "said so") for _ in questions]


async def paid_in(house: House, amount: int = ETHER) -> Any:
    house.mine(house.pay(house.acme, amount), empty_after=2)
    await house.catch_up()
    return (await house.deposits())[-1]


def signed(payload: bytes, *codes: str) -> dict[str, bytes]:
    return {code: operator_keypair(code).sign(payload) for code in codes}


# Answers.


async def test_what_nobody_has_answered_waits_and_is_never_taken_for_a_yes(house: House) -> None:
    house.screening = provider = Provider()
    await paid_in(house)
    assert await house.states() == ["confirmed"]

    provider.away = True
    await house.advance()
    assert await house.states() == ["confirmed"]

    provider.away, provider.verdict = False, Verdict.CLEAR
    await house.advance()
    assert await house.states() == ["credited"]
    assert len(provider.asked) == 2


async def test_fewer_answers_than_questions_let_nothing_through(house: House) -> None:
    class Mute(Provider):
        async def screen(self, questions: Sequence[Question]) -> Sequence[Answer]:
            return []

    house.screening = Mute()
    await paid_in(house)

    assert await house.states() == ["confirmed"]
    with pytest.raises(OutsideUnavailable, match="1 questions were screened and 0 answers"):
        await screen_deposits(house.engine, house.screening, "evm", now=house.now)


async def test_one_unanswered_deposit_keeps_no_other_waiting(house: House) -> None:
    class Picky(Provider):
        async def screen(self, questions: Sequence[Question]) -> Sequence[Answer]:
            return [
                Answer(Verdict.UNKNOWN if q.address == STRANGER else Verdict.CLEAR)
                for q in questions
            ]

    house.screening = Picky()
    house.mine(house.pay(house.acme, 1), house.pay(house.acme, 2, sender=OTHER), empty_after=2)
    await house.catch_up()

    assert {d.sender: d.state for d in await house.deposits()} == {
        STRANGER: DepositState.CONFIRMED,
        OTHER: DepositState.CREDITED,
    }


async def test_who_answered_and_by_which_version_is_kept(house: House) -> None:
    house.screening = AddressList(7)
    deposit = await paid_in(house)

    case = await house.case(deposit.id)
    assert (case.state, case.provider, case.list_version) == (CaseState.CLEARED, "list", "7")
    (opinion,) = await house.do(lambda conn: list_opinions(conn, case.id))
    assert (opinion.verdict, opinion.list_version) == (Verdict.CLEAR, "7")
    told = await house.do(lambda conn: list_history(conn, "deposit", deposit.id))
    assert "cleared by list version 7" in [event.reason for event in told]


async def test_a_deposit_mined_again_is_screened_again(house: House) -> None:
    paid = house.pay(house.acme, ETHER)
    house.mine(paid, empty_after=2)
    await house.catch_up()
    house.screening = AddressList.blocking(2, {STRANGER})

    house.gateway.reorg(3, [[], [], [paid], [], []])
    await house.catch_up()

    assert await house.states() == ["held"]


@pytest.mark.parametrize("is_mined_again", [False, True], ids=["gone", "mined again"])
@pytest.mark.parametrize("verdict", [Verdict.CLEAR, Verdict.HIT])
async def test_a_deposit_that_vanished_before_it_was_answered_for_leaves_no_case_open(
    house: House, verdict: Verdict, *, is_mined_again: bool
) -> None:
    """Nobody records for the travel rule what is gone: an answer is all that is waited for."""
    house.screening = provider = Provider()
    house.travel_rule = TravelRule(1, {"ETH": ETHER})
    paid = house.pay(house.acme, ETHER)
    house.mine(paid, empty_after=2)
    await house.catch_up()
    (deposit,) = await house.deposits()
    first = await house.case(deposit.id)
    house.gateway.reorg(3, [[], [], [paid] if is_mined_again else [], []])
    await house.catch_up()
    assert (await house.case(deposit.id)).state is CaseState.OPEN

    provider.verdict = verdict
    await house.advance()

    now = await house.case(first.id)
    assert now.state is (CaseState.CLEARED if verdict is Verdict.CLEAR else CaseState.HELD)
    left = await house.do(lambda conn: list_cases(conn, states=[CaseState.OPEN]))
    assert left == []
    if verdict is Verdict.HIT:
        assert (await house.release(first.id)).state is CaseState.RELEASED
    assert await house.states() == (["included"] if is_mined_again else ["orphaned"])


async def test_what_may_still_be_let_in_waits_for_its_travel_rule_record(house: House) -> None:
    """Quarantined, it is not asked about as what is gone: people may adopt it in the same block."""
    house.screening = Provider(Verdict.CLEAR)
    house.travel_rule = TravelRule(1, {"ETH": ETHER})
    deposit = await paid_in(house)
    await house.do(lambda conn: conn.execute(text(QUARANTINED)))

    await house.advance()

    assert (await house.case(deposit.id)).state is CaseState.OPEN


QUARANTINED = "UPDATE custody.deposit SET state = 'quarantined'"


# People.


async def test_one_person_holds_what_is_on_its_way_and_two_let_it_go(house: House) -> None:
    house.screening = Provider()
    deposit = await paid_in(house)
    case = await house.case(deposit.id)
    reason = "a tip"
    signatures = signed(people.case_bytes(people.HOLD_VERB, case, reason), "dan")

    await house.do(
        lambda conn: decisions.hold(
            conn, deposit.id, signatures=signatures, reason=reason, now=house.now
        )
    )
    await house.advance()
    assert await house.states() == ["held"]

    await house.release(deposit.id)
    assert (await house.balances())["client:acme ETH"] == (ETHER, 0)
    said = await house.do(lambda conn: list_decisions(conn, case.id))
    assert [(one.verb, one.operators) for one in said] == [
        ("compliance.hold", ("dan",)),
        ("compliance.release", ("ben", "cleo")),
    ]


@pytest.mark.parametrize("by", [("ben",), ("ben", "dan")])
async def test_neither_one_nor_one_without_the_right_lets_go(
    house: House, by: tuple[str, ...]
) -> None:
    house.screening = LISTED
    deposit = await paid_in(house)

    with pytest.raises(NotAuthorised):
        await house.release(deposit.id, *by)
    assert await house.states() == ["held"]


async def test_a_signature_lets_go_only_what_was_signed(house: House) -> None:
    house.screening = LISTED
    house.mine(house.pay(house.acme, 5), house.pay(house.acme, 6), empty_after=2)
    await house.catch_up()
    one, other = await house.deposits()
    payload = people.case_bytes(people.RELEASE_VERB, await house.case(one.id), "fine")
    signatures = signed(payload, "ben", "cleo")

    for target, reason in ((other, "fine"), (one, "finer")):

        async def work(conn: AsyncConnection, target: Any = target, reason: str = reason) -> None:
            await decisions.release(
                conn, target.id, signatures=signatures, reason=reason, book=BOOK, now=house.now
            )

        with pytest.raises(NotAuthorised):
            await house.do(work)


async def place(house: House, order: str = "7 Js 12/26", party: str = "acme") -> LegalHold:
    house.clock.advance(timedelta(seconds=1))
    payload = people.legal_hold_bytes(people.LEGAL_HOLD_VERB, party, order, "ordered")
    return await house.do(
        lambda conn: decisions.place_legal_hold(
            conn,
            party,
            order=order,
            signatures=signed(payload, "dan"),
            reason="ordered",
            now=house.now,
        )
    )


async def lift(house: House, hold: LegalHold, *by: str) -> LegalHold:
    payload = people.lift_bytes(hold, "withdrawn")
    return await house.do(
        lambda conn: decisions.lift_legal_hold(
            conn, hold.id, signatures=signed(payload, *by), reason="withdrawn", now=house.now
        )
    )


async def test_a_legal_hold_stops_release_until_two_lift_it(house: House) -> None:
    house.screening = LISTED
    deposit = await paid_in(house)
    hold = await place(house)

    with pytest.raises(NotPossible, match="7 Js 12/26"):
        await house.release(deposit.id)
    with pytest.raises(NotAuthorised):
        await lift(house, hold, "ben")
    await lift(house, hold, "ben", "cleo")
    with pytest.raises(NotPossible, match="lifted already"):
        await lift(house, hold, "ben", "cleo")
    await house.release(deposit.id)

    assert await house.states() == ["credited"]


# Refunds.


async def refund(
    house: House,
    deposit: Any,
    *,
    by: tuple[str, ...] = ("ben", "cleo"),
    signed_for: str = "client-pool",
) -> Payout:
    case, reason = await house.case(deposit.id), "sent in error"
    payload = people.refund_bytes(case, reason, destination=OTHER, wallet=signed_for)
    return await house.do(
        lambda conn: decisions.refund(
            conn,
            deposit.id,
            destination=OTHER,
            source_wallet="client-pool",
            signatures=signed(payload, *by),
            reason=reason,
            book=BOOK,
            now=house.now,
        )
    )


async def ready_to_pay(house: House) -> None:
    async def work(conn: AsyncConnection) -> None:
        await set_policy(conn, now=house.now)
        await allow(conn, "acme", OTHER, now=house.now)

    await house.assign("client-pool", AddressPurpose.HOT, None)
    await house.do(work)


async def test_a_refund_is_a_payout_of_the_held_account_and_comes_back_when_refused(
    house: House,
) -> None:
    house.screening = LISTED
    await ready_to_pay(house)
    deposit = await paid_in(house)
    with pytest.raises(NotAuthorised):
        await refund(house, deposit, by=("ben",))

    payout = await refund(house, deposit)

    assert (payout.claim, payout.amount, payout.state) == (
        "client:acme:held",
        ETHER,
        PayoutState.PENDING_APPROVAL,
    )
    (after,) = await house.deposits()
    assert (after.state, after.refund) == (DepositState.REFUNDING, payout.id)
    with pytest.raises(NotPossible):
        await house.release(deposit.id)

    async def refuse(conn: AsyncConnection) -> None:
        cleo = await get_operator(conn, "cleo")
        await reject_payout(conn, payout.id, by=cleo, reason="no", book=BOOK, now=house.now)

    await house.do(refuse)
    await house.advance()
    (after,) = await house.deposits()
    assert (after.state, after.refund) == (DepositState.HELD, None)
    assert (await house.case(deposit.id)).state is CaseState.HELD
    assert await house.open_holds() == []
    await refund(house, after)
    assert await house.states() == ["refunding"]


async def test_a_refund_is_paid_by_the_wallet_that_both_people_have_signed(house: House) -> None:
    house.screening = LISTED
    await ready_to_pay(house)
    deposit = await paid_in(house)

    with pytest.raises(NotAuthorised, match="signature"):
        await refund(house, deposit, signed_for="acme-segregated")

    assert await house.states() == ["held"]


async def test_a_refund_that_was_not_signed_ends_with_its_deposit(house: House) -> None:
    house.screening = LISTED
    await ready_to_pay(house)
    deposit = await paid_in(house)
    await refund(house, deposit)

    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()

    assert await house.states() == ["reversed"]
    assert await house.balances() == {}
    assert await house.open_holds() == []


async def test_a_legal_hold_stops_a_refund(house: House) -> None:
    house.screening = LISTED
    await ready_to_pay(house)
    deposit = await paid_in(house)
    await place(house)

    with pytest.raises(NotPossible, match="legal hold"):
        await refund(house, deposit)


# Payouts.


async def asked_for(house: House, amount: int = 1) -> Payout:
    request = PayoutRequest(
        client_ref=f"w-{amount}",
        claim="client:acme",
        source_wallet="client-pool",
        asset="ETH",
        amount=amount,
        destination=OTHER,
        requested_by="dan",
    )
    return await house.do(lambda conn: request_payout(conn, request, book=BOOK, now=house.now))


async def waits(house: House, payout: Payout) -> str:
    found = await house.do(lambda conn: find_uncleared(conn, [payout]))
    return found.get(payout.id, "")


async def test_no_legal_hold_is_missed_because_there_are_many(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More holds on one client than a page has must not hide the one on another."""
    monkeypatch.setattr(compliance_store, "PAGE_MAX", 2)
    for number in range(3):
        await place(house, order=f"{number}", party="birch")
    last = await place(house, order="last")
    await ready_to_pay(house)
    await paid_in(house)
    mine = await asked_for(house)
    others = replace(mine, id=derive_id(house.now, "other"), claim="client:birch")

    found = await house.do(lambda conn: find_uncleared(conn, [mine, others]))

    assert found == {
        mine.id: "legal hold last on acme",
        others.id: "legal hold 0 on birch",
    }
    first = await house.do(list_legal_holds)
    rest = await house.do(lambda conn: list_legal_holds(conn, after=first[-1].id))
    assert [hold.id for hold in (*first, *rest)][-1] == last.id
    assert (len(first), len(rest)) == (2, 2)


async def test_a_payout_waits_until_it_is_screened(house: House) -> None:
    await ready_to_pay(house)
    await paid_in(house)
    payout = await asked_for(house)
    assert await waits(house, payout) == "nobody has screened it yet"

    await screen_payouts(house.engine, Provider(), "evm", now=house.now)
    assert await waits(house, payout) == "said so"
    with pytest.raises(NotPossible, match="waits for compliance"):
        await house.do(lambda conn: require_cleared(conn, payout))

    await screen_payouts(house.engine, AddressList(1), "evm", now=house.now)
    assert await waits(house, payout) == ""
    await place(house)
    assert "7 Js 12/26" in await waits(house, payout)


async def test_a_payout_that_was_withdrawn_before_it_was_answered_for_leaves_no_case_open(
    house: House,
) -> None:
    await ready_to_pay(house)
    await paid_in(house)
    payout = await asked_for(house)
    await screen_payouts(house.engine, Provider(), "evm", now=house.now)
    ben = await house.do(lambda conn: get_operator(conn, "ben"))
    await house.do(
        lambda conn: reject_payout(
            conn, payout.id, by=ben, reason="not now", book=BOOK, now=house.now
        )
    )

    await screen_payouts(house.engine, AddressList(1), "evm", now=house.now)

    assert (await house.case(payout.id)).state is CaseState.CLEARED
    assert (await house.do(lambda conn: get_payout(conn, payout.id))).state is PayoutState.REJECTED


async def test_a_payout_to_a_listed_address_goes_only_when_two_let_it(house: House) -> None:
    await ready_to_pay(house)
    await paid_in(house)
    payout = await asked_for(house)

    await screen_payouts(house.engine, AddressList.blocking(1, {OTHER}), "evm", now=house.now)
    assert "it is held" in await waits(house, payout)
    await house.release(payout.id)

    assert await waits(house, payout) == ""


# Re-screening.


async def test_a_newer_list_asks_again_about_everything_open_and_once(house: House) -> None:
    await ready_to_pay(house)
    credited = await paid_in(house)
    payout = await asked_for(house)
    await screen_payouts(house.engine, AddressList(1), "evm", now=house.now)
    newer = AddressList.blocking(2, {STRANGER, OTHER}, "found out")

    done = await rescreen(house.engine, newer, now=house.now)
    again = await rescreen(house.engine, newer, now=house.now)

    assert (done.due, done.hits, done.unknown, again.due) == (True, 3, 0, False)
    held = await house.do(lambda conn: list_cases(conn, states=[CaseState.HELD]))
    assert {case.subject for case in held} == set(Subject)
    assert (await house.case(credited.id)).reason == f"{STRANGER} is on list version 2: found out"
    assert "speaks against the destination" in await waits(house, payout)
    assert await house.states() == ["credited"]


async def test_a_version_that_was_not_answered_to_the_end_is_asked_again(house: House) -> None:
    house.screening = AddressList(1)
    await paid_in(house)
    provider = Provider(number="2")

    first = await rescreen(house.engine, provider, now=house.now)
    provider.verdict = Verdict.HIT
    second = await rescreen(house.engine, provider, now=house.now)

    assert (first.unknown, first.hits, second.hits) == (1, 0, 1)


async def test_a_list_does_not_overrule_two_people(house: House) -> None:
    house.screening = LISTED
    deposit = await paid_in(house)
    await house.release(deposit.id)

    await rescreen(house.engine, AddressList.blocking(2, {STRANGER}), now=house.now)

    case = await house.case(deposit.id)
    assert (case.state, case.list_version) == (CaseState.RELEASED, "2")


async def test_a_list_without_the_address_lets_nothing_go_by_itself(house: House) -> None:
    house.screening = LISTED
    deposit = await paid_in(house)

    await rescreen(house.engine, AddressList(2), now=house.now)

    assert (await house.case(deposit.id)).state is CaseState.HELD
    assert await house.states() == ["held"]


# Freezes.


async def test_what_is_frozen_waits_confirmed_and_goes_on_when_two_open(house: House) -> None:
    scope = Scope(ScopeKind.CLIENT, "acme")
    freeze_id = derive_freeze_id(scope, house.now)

    async def shut(conn: AsyncConnection) -> None:
        signature = operator_keypair("dan").sign(freeze_bytes(freeze_id, scope, "look"))
        await close(conn, scope, by="dan", signature=signature, reason="look", now=house.now)

    await house.do(shut)
    house.mine(house.pay(house.acme, 3), house.pay(house.birch, 4), empty_after=2)
    await house.catch_up()
    by_party = {d.party: d for d in await house.deposits()}
    assert by_party["birch"].state is DepositState.CREDITED
    assert by_party["acme"].state is DepositState.CONFIRMED
    assert by_party["acme"].waiting_for.startswith("client:acme is frozen")

    signatures = signed(thaw_bytes(freeze_id, "fine"), "ada", "ben")
    await house.do(
        lambda conn: open_again(conn, scope, signatures=signatures, reason="fine", now=house.now)
    )
    await house.advance()
    assert {(str(d.state), d.waiting_for) for d in await house.deposits()} == {("credited", "")}


# Travel rule.


def ivms(name: str = "Erika Mustermann") -> dict[str, Any]:
    person = {
        "naturalPerson": {
            "name": {"nameIdentifier": [{"primaryIdentifier": name}]},
            "geographicAddress": [{"country": "DE"}],
        }
    }
    return {
        "originator": {"originatorPersons": [person], "accountNumber": [STRANGER]},
        "beneficiary": {"beneficiaryPersons": [person], "accountNumber": ["acme"]},
        "selfHosted": True,
    }


def test_an_incomplete_record_says_what_it_lacks() -> None:
    assert find_missing(ivms()) == []
    assert find_missing({}) == [
        "originator.originatorPersons[].name",
        "originator.accountNumber",
        "originator.originatorPersons[].geographicAddress",
        "beneficiary.beneficiaryPersons[].name",
        "beneficiary.accountNumber",
        "originatingVASP",
        "beneficiaryVASP",
    ]
    with pytest.raises(BadInput, match="'passport'"):
        find_missing({"passport": {}})


async def test_from_the_threshold_on_nothing_is_credited_without_a_complete_record(
    house: House,
) -> None:
    house.travel_rule = TravelRule(1, {"ETH": ETHER})
    house.mine(house.pay(house.acme, ETHER), house.pay(house.acme, ETHER - 1), empty_after=2)
    await house.catch_up()
    waiting = next(d for d in await house.deposits() if d.amount == ETHER)
    assert sorted(await house.states()) == ["confirmed", "credited"]
    assert (await house.case(waiting.id)).reason == "the travel-rule record is missing"

    for document in ({}, ivms()):

        async def write(conn: AsyncConnection, document: dict[str, Any] = document) -> None:
            await write_record(conn, waiting.id, document, key=KEY, by="dan", now=house.now)

        await house.do(write)
        await house.advance()
        if not document:
            assert sorted(await house.states()) == ["confirmed", "credited"]
    assert await house.states() == ["credited", "credited"]


async def test_no_name_is_readable_in_the_database(house: House, owner_engine: AsyncEngine) -> None:
    deposit = await paid_in(house)
    await house.do(
        lambda conn: write_record(conn, deposit.id, ivms(), key=KEY, by="dan", now=house.now)
    )

    async with owner_engine.connect() as conn:
        tables = await conn.scalars(
            text(
                "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables "
                "WHERE schemaname IN ('custody', 'kernel', 'ledger')"
            )
        )
        for table in tables.all():
            rows = await conn.scalars(text(f"SELECT t::text FROM {table} t"))  # noqa: S608  of the catalogue
            for row in rows:
                assert "Mustermann" not in row
                assert b"Mustermann".hex() not in row
    (record,) = await house.do(lambda conn: list_records(conn, deposit.id))
    assert record.opened(KEY) == ivms()
    with pytest.raises(Refused, match="cannot be opened"):
        record.opened(SealingKey(b"x" * 32))
    assert "kkkk" not in repr(KEY)


async def test_the_same_record_again_is_the_record_and_a_correction_is_the_next(
    house: House,
) -> None:
    deposit = await paid_in(house)

    async def write(name: str) -> int:
        document = ivms(name)
        kept = await house.do(
            lambda conn: write_record(conn, deposit.id, document, key=KEY, by="dan", now=house.now)
        )
        return kept.number

    assert [await write(name) for name in ("A", "A", "B")] == [1, 1, 2]


# Self-hosted addresses.


async def test_whoever_holds_the_key_of_an_address_proves_it_and_nobody_else(house: House) -> None:
    mine, other = dev_account(3), dev_account(4)

    async def ask(conn: AsyncConnection) -> Any:
        return await ownership.challenge(
            conn, "acme", "evm", mine.address, nonce=b"n" * 16, by="dan", now=house.now
        )

    async def prove(signature: bytes, later: timedelta = timedelta(0)) -> Any:
        return await house.do(
            lambda conn: ownership.prove(conn, proof.id, signature, by="dan", now=house.now + later)
        )

    proof = await house.do(ask)
    good = sign_message(mine, proof.message)
    for wrong in (sign_message(other, proof.message), sign_message(mine, "x"), b"", good[:-1]):
        with pytest.raises(NotPossible):
            await prove(wrong)
    with pytest.raises(NotPossible, match="ended"):
        await prove(good, timedelta(days=1))
    proven = await prove(good)
    assert (proven.state, await prove(good)) == (ProofState.PROVEN, proven)
    assert await house.do(lambda conn: ownership.list_proofs(conn, "acme")) == [proven]
    assert await house.do(lambda conn: ownership.list_proofs(conn, "birch")) == []


def sign_message(account: Any, message: str) -> bytes:
    from eth_account.messages import encode_defunct  # noqa: PLC0415  the second library

    return bytes(account.sign_message(encode_defunct(text=message)).signature)


def test_our_recovery_of_a_signer_agrees_with_the_second_library() -> None:
    account = dev_account(5)
    for message in ("", "a", "ä" * 40, "two\nlines"):
        signature = sign_message(account, message)
        assert recover_signer(message, signature) == account.address
        parity = bytes([signature[-1] - 27])
        assert recover_signer(message, signature[:-1] + parity) == account.address


# The database's half.


@pytest.mark.parametrize("machine", [CASE_STATES, LEGAL_HOLD_STATES, PROOF_STATES, PENDING_STATES])
async def test_the_trigger_has_the_edges_of_the_model(
    owner_engine: AsyncEngine, machine: StateTable
) -> None:
    function, _ = trigger_statements(machine)
    async with owner_engine.connect() as conn:
        source = await conn.scalar(
            text("SELECT prosrc FROM pg_proc WHERE proname = :name"),
            {"name": trigger_name(machine)},
        )
    assert source is not None
    assert source in function


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("UPDATE custody.compliance_case SET state = 'released'", "compliance_case_state_edges"),
        ("UPDATE custody.compliance_opinion SET verdict = 'clear'", "compliance_opinion_kept"),
        ("DELETE FROM custody.compliance_opinion", "compliance_opinion_kept"),
        ("UPDATE custody.confirmation_policy SET version = 9", "confirmation_policy_kept"),
    ],
)
async def test_the_database_refuses_what_the_code_would(
    house: House, owner_engine: AsyncEngine, statement: str, constraint: str
) -> None:
    await paid_in(house)
    async with owner_engine.connect() as conn:
        with pytest.raises(DBAPIError) as refused:
            await conn.execute(text(statement))
    assert constraint_name(refused.value) == constraint
