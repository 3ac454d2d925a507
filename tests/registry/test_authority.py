from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from registry.authority import require_role, signing_bytes, verify_signature
from registry.errors import NotAuthorised
from registry.model import Role
from registry.testing import operator, operator_keypair

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.text(), VALUES, max_size=4)


def test_the_signed_bytes_are_exactly_these() -> None:
    signed = signing_bytes(
        "payout.approve",
        {
            "payout": UUID(int=7),
            "amount": 10**30,
            "at": datetime(2026, 1, 5, 9, 0, tzinfo=UTC),
            "digest": b"\x00\xff",
            "to": "Zürich",
            "roles": ["a", None, True],
        },
    )

    assert signed == (
        b'{"domain":"causeway/1","fields":{"amount":1000000000000000000000000000000,'
        b'"at":"2026-01-05T09:00:00.000Z","digest":"00ff",'
        b'"payout":"00000000-0000-0000-0000-000000000007","roles":["a",null,true],'
        b'"to":"Z\\u00fcrich"},"verb":"payout.approve"}'
    )


@given(FIELDS)
def test_the_order_of_fields_does_not_matter(fields: dict[str, object]) -> None:
    backwards = dict(reversed(list(fields.items())))

    assert signing_bytes("v", fields) == signing_bytes("v", backwards)


@given(FIELDS, FIELDS)
def test_other_fields_give_other_bytes(one: dict[str, object], other: dict[str, object]) -> None:
    # repr tells True from 1, which == does not.
    same = repr(_sorted(one)) == repr(_sorted(other))

    assert (signing_bytes("v", one) == signing_bytes("v", other)) == same


def test_another_verb_gives_other_bytes() -> None:
    assert signing_bytes("approve", {"a": 1}) != signing_bytes("reject", {"a": 1})


@pytest.mark.parametrize("value", [1.5, {1, 2}, object(), {1: "a"}])
def test_a_value_without_one_spelling_cannot_be_signed(value: object) -> None:
    with pytest.raises(BadInput):
        signing_bytes("v", {"field": value})


def test_a_signature_holds_for_its_operator_and_its_bytes_only() -> None:
    ada, ben = operator("ada", Role.ADMIN), operator("ben", Role.ADMIN)
    payload = signing_bytes("v", {"a": 1})
    signature = operator_keypair("ada").sign(payload)

    verify_signature(ada, payload, signature)
    for who, what, given_signature in (
        (ben, payload, signature),
        (ada, payload + b" ", signature),
        (ada, payload, bytes(64)),
        (ada, payload, signature[:-1]),
        (ada, payload, signature + b"\x00"),
        (ada, payload, b""),
        (operator("ada", Role.ADMIN, active=False), payload, signature),
    ):
        with pytest.raises(NotAuthorised):
            verify_signature(who, what, given_signature)


def test_a_role_is_needed_and_one_of_several_is_enough() -> None:
    ada = operator("ada", Role.TREASURER)

    require_role(ada, Role.ADMIN, Role.TREASURER)
    with pytest.raises(NotAuthorised, match="ada is not admin or dealer"):
        require_role(ada, Role.ADMIN, Role.DEALER)


def test_an_inactive_operator_has_no_role() -> None:
    with pytest.raises(NotAuthorised, match="not active"):
        require_role(operator("ada", Role.ADMIN, active=False), Role.ADMIN)


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return [(key, _sorted(value[key])) for key in sorted(value)]
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value
