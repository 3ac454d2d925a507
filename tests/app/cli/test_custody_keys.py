"""``causeway custody keys retire``: two administrators, once and for ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from custody.control_messages import ControlKind, control_bytes
from custody.signer_sync import ControlState, list_messages
from kernel.db import transact
from registry.testing import operator_keypair
from tests.app.cli.conftest import Cli

OLD, NEW = "m/44'/60'/0'", "m/44'/60'/3'"
As = Callable[[str], tuple[str, ...]]


def approved_by(code: str, keys: dict[str, Path]) -> tuple[str, ...]:
    return ("--approver", code, "--approver-key", str(keys[code]))


async def test_two_administrators_retire_a_key_and_the_signer_is_told(
    house: AsyncEngine, cli: Cli, as_: As, keys: dict[str, Path]
) -> None:
    words = ("custody", "keys", "retire", OLD, "--successor", NEW, "--reason", "on its day")
    done = cli(*words, *as_("ada"), *approved_by("ben", keys), "--json")
    [queued] = await transact(house, list_messages)

    assert done.code == 0, done.err
    assert done.json["message"] == queued.digest
    assert (queued.kind, queued.state) == (ControlKind.KEY_RETIRE, ControlState.QUEUED)
    assert queued.message.body == {"path": OLD, "successor": NEW, "reason": "on its day"}
    assert {item.operator for item in queued.message.signatures} == {"ada", "ben"}
    payload = control_bytes(ControlKind.KEY_RETIRE, queued.message.body)
    for item in queued.message.signatures:
        assert item.signature == operator_keypair(item.operator).sign(payload)

    again = cli(*words, *as_("ada"), *approved_by("ben", keys))
    other = cli(
        *("custody", "keys", "retire", OLD, "--successor", "m/44'/60'/4'", "--reason", "x"),
        *(*as_("ada"), *approved_by("ben", keys)),
    )
    assert (again.code, other.code) == (1, 1)
    assert "were retired before" in again.err
    assert len(await transact(house, list_messages)) == 1


async def test_one_person_or_somebody_without_the_role_retires_nothing(
    house: AsyncEngine, cli: Cli, as_: As, keys: dict[str, Path]
) -> None:
    words = ("custody", "keys", "retire", OLD, "--successor", NEW, "--reason", "on its day")
    alone = cli(*words, *as_("ada"), *approved_by("ada", keys))
    trader = cli(*words, *as_("ada"), *approved_by("dan", keys))
    same = cli(
        *("custody", "keys", "retire", OLD, "--successor", OLD, "--reason", "x"),
        *(*as_("ada"), *approved_by("ben", keys)),
    )

    assert (alone.code, trader.code, same.code) == (1, 1, 2)
    assert "2 administrators" in alone.err
    assert "dan is not admin" in trader.err
    assert "another key" in same.err
    assert await transact(house, list_messages) == []
