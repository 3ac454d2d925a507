"""The limits that docs/signer.md shows are put in force in a signer, and hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from uuid import UUID

import msgspec

from custody.control_messages import ControlKind
from custody.signer.wire import Accepted, SpendChange, SpendIntent
from kernel.clock import ManualClock
from tests.custody.signer.purse import CHANGE, COIN, RULES, ask, coin, line, open_purse, spend
from tests.custody.signer.vault import START, control, later, limits, tell

PAGE = Path(__file__).resolve().parents[2] / "docs" / "signer.md"


def paying(number: int, fee: int, fee_cap: int = 200_000) -> SpendIntent:
    return spend(
        spend_id=UUID(int=number),
        lines=[line(number)],
        inputs=[coin(number, 1_000_000, COIN)],
        anchor=f"{number:064x}:{number}",
        fee=fee,
        fee_cap=fee_cap,
    )


def test_the_limits_of_fees_that_the_page_shows_hold(tmp_path: Path) -> None:
    [block] = re.findall(r"```json\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    shown = json.loads(block.replace('"bitcoin"', '"btc"'))  # the code of the chain here
    clock = ManualClock(START)
    with open_purse(tmp_path, RULES, clock) as signer:
        message = control(ControlKind.LIMITS, limits(using=RULES, **shown), "ann", "bob")
        assert isinstance(tell(signer, message), Accepted)

        assert "above the signer's 200000" in str(ask(signer, paying(1, 100_000, 200_001)))
        for number, fee in enumerate((200_000, 200_000, 100_000), 1):
            assert isinstance(ask(signer, paying(number, fee)), bytes)
        returned = msgspec.structs.replace(paying(5, 1), kind="cancel", lines=[])
        returned = msgspec.structs.replace(
            returned, change=SpendChange(amount=999_999, key_path=CHANGE)
        )
        for meant in (paying(4, 1), returned):
            assert "reach the signer's 500000 satoshi in 86400 s" in str(ask(signer, meant))
        later(clock, 86_401)
        assert isinstance(ask(signer, returned), bytes)
