"""What the signer remembers of Bitcoin: which coin decides which payments, and what coins hold.

Every transaction of a spend spends its *anchor*, so no two of them can ever both be mined; an anchor
belongs to one spend and its payments for ever, and a payout to one spend until people prove that it
is dead. A replacement pays the same lines for a higher fee; a cancellation pays nobody. So whatever the
application asks for, each payout is made once at most.

What a coin holds is written down with the first signature. A signature of version 0 commits to the
amount of its own input only (BIP 143), so whoever could tell other amounts the second time would put
two half-true transactions together into one that burns coins as its fee.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec

from chain.bitcoin.transactions import decode
from custody.control_messages import SpendDead
from custody.signer.audit import SPENT, AuditLog
from custody.signer.errors import SignerRefused
from custody.signer.wire import SpendIntent

REPLACEMENTS_MAX: Final = 16
INSERT_SPEND: Final = (
    "INSERT INTO spend VALUES (?, ?, ?, ?, ?, ?, NULL) ON CONFLICT (chain_id, anchor) DO NOTHING"
)
INSERT_PAYOUT: Final = (
    "INSERT INTO spend_payout VALUES (?, ?, ?, NULL) ON CONFLICT (payout_id, spend_id) DO NOTHING"
)
INSERT_SIGNED: Final = "INSERT INTO spend_signed VALUES (?, ?, ?, ?, ?, ?, ?)"
INSERT_COIN: Final = (
    "INSERT INTO coin VALUES (?, ?, ?, ?, ?) ON CONFLICT (chain_id, outpoint) DO NOTHING"
)
BURY_SPEND: Final = (
    "UPDATE spend SET dead_seq = ? WHERE chain_id = ? AND anchor = ? AND spend_id = ?"
)
BURY_PAYOUTS: Final = "UPDATE spend_payout SET dead_seq = ? WHERE spend_id = ?"

Statement = tuple[str, tuple[object, ...]]


class SpendBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The record of a signed Bitcoin transaction; byte strings in base64.

    Attributes:
        unsigned: the transaction without witnesses.
        approvers: who approved each payout, by its id.
        auto: payouts that a service approved.
        is_first: nothing was signed with this anchor before, so the amounts were counted.
        fee: satoshi that it added to the window of fees, decimal text.
    """

    intent: SpendIntent
    unsigned: bytes
    raw: bytes
    approvers: dict[str, list[str]]
    auto: list[str]
    is_first: bool
    fee: str


@dataclass(frozen=True, slots=True)
class SpendMemory:
    """The part of the store that is about Bitcoin; see `custody.signer.store.Memory`."""

    database: sqlite3.Connection
    log: AuditLog

    def knows(self, payouts: list[UUID]) -> bool:
        """Tell whether a payment of one of the payouts was ever signed."""
        return any(
            self._rows("SELECT 1 FROM spend_payout WHERE payout_id = ?", item) for item in payouts
        )

    def is_alive(self, payout_id: UUID) -> bool:
        """Tell whether a signed spend may still pay the payout."""
        statement = "SELECT 1 FROM spend_payout WHERE payout_id = ? AND dead_seq IS NULL"
        return bool(self._rows(statement, payout_id))

    def find(self, intent: SpendIntent, unsigned: bytes) -> bytes | None:
        """Return the bytes that this very request got before."""
        rows = self._rows(
            "SELECT seq FROM spend_signed WHERE unsigned_hash = ? AND spend_id = ?",
            _hash(unsigned),
            intent.spend_id,
        )
        if not rows:
            return None
        body = msgspec.json.decode(self.log.read(rows[0][0]).body, type=SpendBody)
        return body.raw if body.intent == intent else None

    def fee_before(self, intent: SpendIntent) -> int | None:
        """Return the highest fee that was signed with the intent's anchor; None: nothing was."""
        rows = self._rows(
            "SELECT max(fee) FROM spend_signed WHERE chain_id = ? AND anchor = ?",
            intent.chain_id,
            intent.anchor,
        )
        return None if rows[0][0] is None else int(rows[0][0])

    def check(self, intent: SpendIntent) -> None:
        """Refuse what could be mined beside, or in place of, what was signed before.

        Raises:
            SignerRefused: names what was signed before.
        """
        self._check_coins(intent)
        rows = self._rows(
            "SELECT spend_id, content, pays, dead_seq FROM spend WHERE chain_id = ? AND anchor = ?",
            intent.chain_id,
            intent.anchor,
        )
        if not rows:
            self._check_new(intent)
            return
        [(spend_id, content, pays, dead_seq)] = rows
        same = intent.kind == "cancel" or (pays and bytes(content) == content_of(intent))
        if spend_id != str(intent.spend_id) or not same:
            raise SignerRefused(f"coin {intent.anchor} is signed for other payments")
        if dead_seq is not None:
            raise SignerRefused(f"coin {intent.anchor} was spent by another transaction")
        self._check_replacement(intent)

    def remember(self, body: SpendBody, *, at_ms: int) -> None:
        """Write what is being signed, inside the caller's transaction."""
        text = msgspec.json.encode(body).decode()
        record = self.log.append(SPENT, str(body.intent.spend_id), text, at=at_ms)
        self._run(index_spend(body, record.seq))

    def bury(self, body: SpendDead, seq: int) -> None:
        """Note that the spend's anchor was spent by another transaction."""
        self._run(bury_rows(body, seq))

    def check_dead(self, body: SpendDead) -> None:
        """Refuse a death that this store contradicts.

        Raises:
            SignerRefused: nothing was signed with that anchor for the spend, or the transaction that
                is said to have spent it is one of the spend's own payments.
        """
        rows = self._rows(
            "SELECT dead_seq FROM spend WHERE chain_id = ? AND anchor = ? AND spend_id = ?",
            body.chain_id,
            body.anchor,
            body.spend_id,
        )
        if rows != [(None,)]:
            raise SignerRefused(
                f"spend {body.spend_id} is not signed with coin {body.anchor}, or dead already"
            )
        signed = self._rows(
            "SELECT seq FROM spend_signed WHERE chain_id = ? AND anchor = ? AND pays = 1",
            body.chain_id,
            body.anchor,
        )
        for (seq,) in signed:
            paid = msgspec.json.decode(self.log.read(seq).body, type=SpendBody)
            if decode(paid.unsigned).tx_id == body.spent_by:
                raise SignerRefused(f"{body.spent_by} is the payment itself: it was made")

    def _check_coins(self, intent: SpendIntent) -> None:
        for item in intent.inputs:
            rows = self._rows(
                "SELECT amount, key_path FROM coin WHERE chain_id = ? AND outpoint = ?",
                intent.chain_id,
                f"{item.tx_id}:{item.index}",
            )
            for amount, key_path in rows:
                before = f"by what was signed before, and not {item.amount}"
                said = f"coin {item.tx_id}:{item.index} holds {amount} satoshi {before}"
                if key_path != item.key_path:
                    before = f"by what was signed before, and not of {item.key_path}"
                    said = f"coin {item.tx_id}:{item.index} is of {key_path} {before}"
                if (amount, key_path) != (item.amount, item.key_path):
                    raise SignerRefused(
                        said, remedy="Read the coin again from the chain: one of the two is false"
                    )

    def _check_new(self, intent: SpendIntent) -> None:
        # A dead spend, too: its payouts are noted as dead under its id, and would stay so.
        others = self._rows("SELECT anchor FROM spend WHERE spend_id = ?", intent.spend_id)
        if others:
            raise SignerRefused(
                f"spend {intent.spend_id} is signed with coin {others[0][0]}",
                remedy="Payouts of a dead spend go into a new one, with an id of its own",
            )
        for line in intent.lines:
            found = self._rows(
                "SELECT spend_id FROM spend_payout WHERE payout_id = ? AND dead_seq IS NULL"
                " UNION ALL SELECT 'nonce ' || nonce FROM payment"
                " WHERE payout_id = ? AND pays = 1 AND dead_seq IS NULL",
                line.payout_id,
                line.payout_id,
            )
            if found:
                raise SignerRefused(
                    f"payout {line.payout_id} is signed in spend {found[0][0]}",
                    remedy="Two operators may state which other transaction has spent its anchor",
                )

    def _check_replacement(self, intent: SpendIntent) -> None:
        [(count, fee)] = self._rows(
            "SELECT count(*), max(fee) FROM spend_signed WHERE chain_id = ? AND anchor = ?",
            intent.chain_id,
            intent.anchor,
        )
        if count > REPLACEMENTS_MAX:
            raise SignerRefused(f"spend {intent.spend_id} was replaced {REPLACEMENTS_MAX} times")
        if intent.fee <= fee:
            raise SignerRefused(
                f"spend {intent.spend_id} is signed with a fee of {fee}",
                remedy="A replacement pays a higher fee",
            )

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        plain = tuple(str(item) if isinstance(item, UUID) else item for item in values)
        return self.database.execute(statement, plain).fetchall()

    def _run(self, statements: Iterator[Statement]) -> None:
        for statement, values in statements:
            self.database.execute(statement, values)


def content_of(intent: SpendIntent) -> bytes:
    """Return what tells one set of payments from another: who is paid how much for which payout."""
    told = sorted(f"{line.payout_id} {line.destination} {line.amount}" for line in intent.lines)
    return _hash("\n".join(told).encode())


def index_spend(body: SpendBody, seq: int) -> Iterator[Statement]:
    """Return the statements that index a signed transaction."""
    intent, spend_id = body.intent, str(body.intent.spend_id)
    pays = int(intent.kind == "pay")
    place = (intent.chain_id, intent.anchor)
    yield INSERT_SPEND, (*place, spend_id, content_of(intent), pays, seq)
    for line in intent.lines:
        yield INSERT_PAYOUT, (str(line.payout_id), spend_id, seq)
    for item in intent.inputs:
        outpoint = f"{item.tx_id}:{item.index}"
        yield INSERT_COIN, (intent.chain_id, outpoint, item.amount, item.key_path, seq)
    yield INSERT_SIGNED, (_hash(body.unsigned), spend_id, *place, pays, intent.fee, seq)


def bury_rows(body: SpendDead, seq: int) -> Iterator[Statement]:
    """Return the statements that bury a spend."""
    yield BURY_SPEND, (seq, body.chain_id, body.anchor, str(body.spend_id))
    yield BURY_PAYOUTS, (seq, str(body.spend_id))


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
