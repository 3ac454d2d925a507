"""Which statements every test sends to PostgreSQL, and the tests that a second server has to pass.

Two servers can differ in what they do with a statement, and in what they do with locks, crashes and
catalogues. So the second one is asked

- every statement that the whole suite has sent to the first, in the cheapest tests that send it,
- all tests whose subject is the server itself (`SERVER`), and
- all tests that nothing is on record of.

Everything else sends it nothing new. ``pytest --statements-to FOLDER`` keeps the record, ``python -m
tests.statements FOLDER`` chooses, and ``pytest --statements-of FOLDER`` runs what was chosen.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
import pytest

SERVER: Final = (
    *("tests/migrations/", "tests/kernel/", "tests/app/local/", "tests/crash/ledger/"),
    *("concurrency", "races", "claims", "tables", "runtime_role", "read_plans", "order_writer"),
)
"""Parts of the paths of tests whose subject is what the server does: schemas, transactions, locks,
roles, plans, recovery."""

WAYS: Final = ("_get_statement", "execute", "executemany", "_copy_out", "_copy_in")
"""Methods of the driver's connection through one of which every statement goes."""

CHOSEN: Final = "chosen.json"
COST_MIN_S: Final = 0.05

_SPACE: Final = re.compile(r"\s+")
_NAME: Final = re.compile(r"[0-9a-f]{8,}|\d+")
_PARAMETER: Final = r"\$0(?:::[A-Za-z_ ]+(?:\(0(?:, 0)?\))?(?:\[\])?)?"
_LIST: Final = re.compile(rf"\({_PARAMETER}(?:, {_PARAMETER})+\)")
_ROWS: Final = re.compile(r"\(\$\*\)(?:, \(\$\*\))+")


def normal(statement: str) -> str:
    """Return a statement without what changes from one time to the next: numbers, names, lengths."""
    text = _SPACE.sub(" ", statement).strip()
    return _ROWS.sub("($*)", _LIST.sub("($*)", _NAME.sub("0", text)))


@lru_cache(maxsize=20_000)
def digest(statement: str) -> str:
    """Return what stands for a statement in the record."""
    return hashlib.blake2b(normal(statement).encode(), digest_size=8).hexdigest()


class Sent(msgspec.Struct, frozen=True):
    """What a test has sent: digests of its statements, and how long it took."""

    test: str
    seconds: float
    statements: tuple[str, ...]


def is_about_the_server(test: str) -> bool:
    """Tell whether the subject of a test is what the server does."""
    path = test.partition("::")[0]
    return any(part in path for part in SERVER)


def choose(record: Iterable[Sent]) -> list[str]:
    """Return tests that together send every statement: all about the server, and cheap ones."""
    by_test = {item.test: item for item in record}
    chosen = [test for test in by_test if is_about_the_server(test)]
    missing = {one for item in by_test.values() for one in item.statements}
    missing.difference_update(*(by_test[test].statements for test in chosen))
    heap = [(-_worth(item, missing), test) for test, item in by_test.items()]
    heapq.heapify(heap)
    while missing:
        _, test = heapq.heappop(heap)
        worth = _worth(by_test[test], missing)
        if heap and -worth > heap[0][0]:  # others have sent some of it meanwhile
            heapq.heappush(heap, (-worth, test))
            continue
        chosen.append(test)
        missing.difference_update(by_test[test].statements)
    return sorted(set(chosen))


def _worth(item: Sent, missing: set[str]) -> float:
    new = sum(one in missing for one in item.statements)
    return new / max(item.seconds, COST_MIN_S)


def read(folder: Path) -> Iterator[Sent]:
    """Read what the workers of a run have written."""
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_bytes().splitlines():
            yield msgspec.json.decode(line, type=Sent)


@dataclass(eq=False)
class Recorder:
    """A pytest plugin that writes down what each test of this process has sent."""

    file: Path
    sent: set[str] = field(default_factory=set)
    seconds: float = 0.0

    def saw(self, statement: str) -> None:
        """Keep the digest of a statement."""
        self.sent.add(digest(statement))

    def pytest_runtest_logstart(self) -> None:
        """Begin a test."""
        self.sent, self.seconds = set(), 0.0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up how long a test took."""
        self.seconds += report.duration

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Write down a test."""
        row = Sent(nodeid, round(self.seconds, 3), tuple(sorted(self.sent)))
        with self.file.open("ab") as out:
            out.write(msgspec.json.encode(row) + b"\n")


def listen(recorder: Recorder) -> None:
    """Tell *recorder* of every statement that this process sends, by whatever way."""
    for name in WAYS:
        setattr(asyncpg.Connection, name, _telling(recorder, getattr(asyncpg.Connection, name)))


def _telling(recorder: Recorder, before: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapped(self: Any, statement: str, *args: Any, **named: Any) -> Any:
        recorder.saw(statement)
        return await before(self, statement, *args, **named)

    return wrapped


@dataclass(frozen=True)
class Chosen:
    """A pytest plugin that leaves out what sends nothing but what others send."""

    left_out: frozenset[str]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leave it out, and say so."""
        out = [item for item in items if item.nodeid in self.left_out]
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item.nodeid not in self.left_out]


def add_options(parser: pytest.Parser) -> None:
    """Add the two options."""
    group = parser.getgroup("causeway")
    group.addoption("--statements-to", type=Path, help="folder to write every test's SQL down in")
    group.addoption("--statements-of", type=Path, help="folder of a record: run what was chosen")


def plug_in(config: pytest.Config) -> None:
    """Do what the options say."""
    if (folder := config.getoption("--statements-to")) is not None:
        worker = os.environ.get("PYTEST_XDIST_WORKER")
        if worker or not config.getoption("numprocesses", None):
            folder.mkdir(parents=True, exist_ok=True)
            recorder = Recorder(folder / f"{worker or 'only'}.jsonl")
            listen(recorder)
            config.pluginmanager.register(recorder)
    if (folder := config.getoption("--statements-of")) is not None:
        found = msgspec.json.decode((folder / CHOSEN).read_bytes())
        config.pluginmanager.register(Chosen(frozenset(found["left_out"])))


def main(arguments: list[str]) -> int:
    """Choose from the record in a folder, and write down and say what was chosen."""
    folder = Path(arguments[0])
    record = [item for item in read(folder) if item.statements]
    chosen = choose(record)
    left_out = sorted({item.test for item in record}.difference(chosen))
    (folder / CHOSEN).write_bytes(msgspec.json.encode({"chosen": chosen, "left_out": left_out}))
    statements = {one for item in record for one in item.statements}
    took = {item.test: item.seconds for item in record}
    sys.stdout.write(
        f"{len(statements)} statements are sent by {len(took)} tests in {sum(took.values()):.0f} s, "
        f"and all of them by {len(chosen)} tests in {sum(took[test] for test in chosen):.0f} s\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
