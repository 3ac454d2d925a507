"""Netting agreements and standing instructions: two people, versions, no old signature again."""

from __future__ import annotations

import asyncio
from datetime import date
from functools import partial
from typing import Any

import pytest

from kernel.errors import CausewayError
from kernel.events import list_history
from kernel.ids import stable_id
from registry.model import Party, PartyKind
from registry.testing import ENTITY, change, operator_keypair
from settlement.agreements import agree, agreement_bytes, instruct, standing_instruction_bytes
from settlement.model import Agreement, Rail
from settlement.store import find_agreement, get_agreements, get_standing_instruction
from settlement.testing import DOCUMENT
from tests.settlement.desk import ACME_WALLET, DAY, ELSEWHERE, Desk, refusal

ACME = Agreement(party="acme", effective_from=DAY, prefunded=False)
LATER = Agreement(party="acme", effective_from=date(2026, 2, 1), prefunded=False)


async def agreed(desk: Desk, agreement: Agreement = ACME, **changes: Any) -> int:
    signed = changes.pop("signed", agreement)
    values: dict[str, Any] = {
        "document_hash": DOCUMENT,
        "by": desk.operators[changes.pop("by", "ada")],
        "approver": desk.operators[changes.pop("approver", "ben")],
        **changes,
    }
    payload = agreement_bytes(signed, DOCUMENT, version=values.pop("version", 1))
    values["signature"] = operator_keypair(values["approver"].code).sign(payload)
    return await desk.do(lambda conn: agree(conn, agreement, now=desk.now, **values))


async def instructed(desk: Desk, destination: str = ACME_WALLET, **changes: Any) -> int:
    version = changes.pop("version", 1)
    values: dict[str, Any] = {
        "party": "acme",
        "asset": "ETH",
        "rail": Rail.EVM,
        "by": desk.operators[changes.pop("by", "ada")],
        "approver": desk.operators[changes.pop("approver", "ben")],
        **changes,
    }
    payload = standing_instruction_bytes(
        values["party"], values["asset"], values["rail"], destination, version=version
    )
    values["signature"] = operator_keypair(values["approver"].code).sign(payload)
    return await desk.do(lambda c: instruct(c, destination=destination, now=desk.now, **values))


@pytest.mark.parametrize(
    ("story", "changes", "because"),
    [
        ("one person", {"approver": "ada"}, "cannot approve what ada entered"),
        ("entered by an approver", {"by": "cleo"}, "cleo is not treasurer or operations"),
        ("approved by operations", {"approver": "dan"}, "dan is not treasurer or approver"),
        ("another agreement signed", {"signed": LATER}, "not ben's, or not of this"),
        ("no hash of the document", {"document_hash": "x"}, "not a SHA-256"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_agreement_is_refused(
    desk: Desk, story: str, changes: dict[str, Any], because: str
) -> None:
    assert because in await refusal(agreed(desk, **changes))
    assert await desk.do(get_agreements) == {}


@pytest.mark.parametrize(
    ("story", "changes", "because"),
    [
        ("one person", {"approver": "ada"}, "cannot approve what ada entered"),
        ("no address", {"destination": "0x12"}, "0x12"),
        ("a broken checksum", {"destination": ACME_WALLET.swapcase()}, ACME_WALLET.swapcase()),
        ("a stranger", {"party": "nobody"}, "nobody"),
        ("an unknown asset", {"asset": "DOGE"}, "DOGE"),
        ("by book", {"rail": Rail.BOOK}, "nobody is paid out by book"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_standing_instruction_is_refused(
    desk: Desk, story: str, changes: dict[str, Any], because: str
) -> None:
    with pytest.raises(CausewayError, match=because):
        await instructed(desk, **changes)


async def test_what_is_in_force_is_left_as_it_is(desk: Desk) -> None:
    assert (await agreed(desk), await agreed(desk)) == (1, 1)
    assert (await instructed(desk), await instructed(desk)) == (1, 1)

    for entity, key in (("netting-agreement", "acme"), ("standing-instruction", "acme/ETH/evm")):
        events = await desk.do(
            partial(list_history, entity_type=entity, entity_id=stable_id(entity, key))
        )
        assert [(e.actor, e.reason) for e in events] == [("ada", "approved by ben")]


async def test_a_change_needs_a_signature_of_its_own_version(desk: Desk) -> None:
    """Whoever kept ben's signature of version 1 cannot bring the old address back."""
    await agreed(desk)
    await instructed(desk)
    assert await agreed(desk, LATER, version=2) == 2
    assert await instructed(desk, ELSEWHERE, version=2) == 2

    assert "not ben's, or not of this" in await refusal(agreed(desk, ACME, version=1))
    assert "not ben's, or not of this" in await refusal(instructed(desk, ACME_WALLET, version=1))

    assert await desk.do(get_agreements) == {"acme": LATER}
    assert await desk.do(lambda c: get_standing_instruction(c, "acme", "ETH", Rail.EVM)) == (
        ELSEWHERE,
        2,
    )
    assert await instructed(desk, ACME_WALLET, version=3) == 3


async def test_only_a_client_can_be_prefunded(desk: Desk) -> None:
    dealer = Party("dealer", PartyKind.COUNTERPARTY, ENTITY.code)
    await desk.do(lambda conn: change(conn, dealer, now=desk.now))
    agreement = Agreement(party="dealer", effective_from=DAY, prefunded=True)

    assert "holds no funds here" in await refusal(agreed(desk, agreement))


async def test_two_changes_at_once_make_one_version(desk: Desk) -> None:
    async def one(agreement: Agreement, destination: str) -> list[str]:
        told = []
        for act in (agreed(desk, agreement), instructed(desk, destination)):
            try:
                told.append(str(await act))
            except CausewayError as error:
                told.append(type(error).__name__)
        return told

    async with asyncio.TaskGroup() as group:
        first = group.create_task(one(ACME, ACME_WALLET))
        second = group.create_task(one(LATER, ELSEWHERE))

    # The slower one is told to look again, or finds that its signature is of version 1.
    for mine, other in zip(first.result(), second.result(), strict=True):
        assert {mine, other} in ({"1", "ChangedMeanwhile"}, {"1", "NotAuthorised"})
    known = await desk.do(lambda conn: find_agreement(conn, "acme"))
    assert known is not None
    assert known[2] == 1


async def test_the_slower_of_two_changes_of_an_agreement_is_refused(desk: Desk) -> None:
    """Both have read version 1 and bring a signature of version 2."""
    await agreed(desk)
    prefunded = Agreement(party="acme", effective_from=DAY, prefunded=True)

    async def first() -> None:
        async with desk.engine.begin() as conn:
            payload = agreement_bytes(LATER, DOCUMENT, version=2)
            await agree(
                conn,
                LATER,
                document_hash=DOCUMENT,
                by=desk.operators["ada"],
                approver=desk.operators["ben"],
                signature=operator_keypair("ben").sign(payload),
                now=desk.now,
            )
            written.set()
            await asyncio.sleep(0.3)

    written = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(first())
        await written.wait()
        second = group.create_task(refusal(agreed(desk, prefunded, version=2)))

    assert "the agreement of acme was changed just now" in second.result()
    assert await desk.do(get_agreements) == {"acme": LATER}
