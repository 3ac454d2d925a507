"""The catalogue of guards fits today's code and GUARANTEES.md; and what takes them out can fail."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from tests.guards.__main__ import main
from tests.guards.catalogue import REPOSITORY, Change, catalogue, promised, without

GUARDS = catalogue()


def test_every_name_is_there_once() -> None:
    assert [name for name, count in Counter(g.name for g in GUARDS).items() if count > 1] == []


def test_every_guard_is_a_row_of_the_guarantees_and_names_its_test() -> None:
    rows = promised()

    assert [g.name for g in GUARDS if g.test not in rows.get(g.guarantee, frozenset())] == []


def test_every_guard_can_be_taken_out_of_the_code_as_it_is() -> None:
    for guard in GUARDS:
        for change in guard.change:
            without(change, (REPOSITORY / change.file).read_text())


def test_every_guard_says_what_it_prevents() -> None:
    assert [g.name for g in GUARDS if not g.disaster.endswith(".") or not g.change] == []


def test_every_guarantee_has_an_entry() -> None:
    """What is promised without one was never seen to fail without its mechanism."""
    entered = {guard.guarantee for guard in GUARDS}

    assert promised().keys() - entered == set()


@pytest.mark.parametrize("text", ["no such line", "twice\ntwice\n"])
def test_a_change_that_fits_nowhere_or_twice_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not once"):
        without(Change("a.py", "twice", "never"), text)


def test_an_unknown_guard_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-guard"]) == 2
    assert "no-such-guard" in capsys.readouterr().err


def test_a_guard_is_taken_out_and_a_test_that_passes_all_the_same_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tool as it is run: copies, changes, the tests' own ends; and the tree is as before."""
    (secret,) = [guard for guard in GUARDS if guard.name == "secret"]
    spared = Change("kernel/settings.py", "shown to nobody", "shown to no one")
    idle = msgspec.structs.replace(secret, name="idle", change=(spared,))
    before = (REPOSITORY / spared.file).read_text()
    monkeypatch.setattr("tests.guards.__main__.catalogue", lambda: [secret, idle])

    assert main(["secret", "idle"]) == 1

    told = capsys.readouterr().out
    assert "fails without it: AssertionError" in told
    assert "DOES NOT FAIL WITHOUT IT: 1 passed" in told
    assert "1 of 2 guards" in told
    assert (REPOSITORY / spared.file).read_text() == before
