"""The list of blocked senders: what it finds, and what it refuses to be read from."""

from __future__ import annotations

import pytest

from custody.screening import BlockedSenders
from kernel.errors import BadInput

SENDER = "0x00000000000000000000000000000000DeaDBeef"


def test_a_list_is_read_with_its_version() -> None:
    found = BlockedSenders.parse('{"version": 3, "senders": ["' + SENDER + '"]}')

    assert found == BlockedSenders(3, frozenset({SENDER}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 1}',
        '{"version": "1", "senders": []}',
        '{"version": 1, "senders": [7]}',
        '{"version": 1, "senders": [], "allow": "all"}',
    ],
)
def test_a_list_that_is_half_understood_screens_nobody_and_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="blocked senders"):
        BlockedSenders.parse(text)
