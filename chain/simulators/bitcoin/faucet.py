"""Coins for demonstrations: a wallet of one key that mines, pays, and can take a payment back.

bitcoind has a wallet for this; the simulator has none, and its key is derived from the seed, known to
everybody and worth nothing anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from coincurve import PrivateKey

from chain.bitcoin.digests import SIGHASH_ALL, Spent, signing_digests
from chain.bitcoin.fees import KEY_HASH_INPUT_WEIGHT, OVERHEAD_WEIGHT, dust_limit, output_weight
from chain.bitcoin.scripts import witness_key_hash_script
from chain.bitcoin.transactions import Input, Outpoint, Output, Transaction
from chain.simulators.bitcoin.errors import InvalidParameter, MiscError, NotFound
from chain.simulators.bitcoin.model import COINBASE_MATURITY, Entry, Packed
from chain.simulators.bitcoin.node import Node
from chain.simulators.bitcoin.policy import fee_at

DEFAULT_RATE: Final = 5_000
FIRST_COINS: Final = 20
MAX_ROUNDS: Final = 50


class Faucet:
    """The wallet of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        secret = hashlib.sha256(b"causeway bitcoin simulator %d" % node.settings.seed).digest()
        self._key = PrivateKey(secret)
        self._public = bytes(self._key.public_key.format())
        self.script = witness_key_hash_script(self._public)

    def mine(self, blocks: int) -> list[str]:
        """Make blocks for the faucet itself."""
        return self._node.generate(blocks, self.script)

    def pay(self, outputs: Sequence[Output], rate: int = DEFAULT_RATE) -> Entry:
        """Put a payment into the pool; blocks are mined first if there are too few coins.

        Raises:
            InvalidParameter: nothing is to be paid.
            MiscError: more than the faucet can mine.
        """
        wanted = sum(output.amount for output in outputs)
        if wanted <= 0:
            raise InvalidParameter("Invalid amount")
        for _ in range(MAX_ROUNDS):
            packed = self._compose(outputs, rate)
            if packed is not None:
                return self._node.take(self._node.examine(packed))
            self.mine(FIRST_COINS if self._node.chain.height > COINBASE_MATURITY else 120)
        raise MiscError("Insufficient funds")

    def replace(self, tx_id: str, script: bytes | None, rate: int | None) -> Entry:
        """Replace a payment of the faucet that waits by one to *script*, or back to the faucet.

        Args:
            rate: None: what the rules of replacement demand.

        Raises:
            NotFound: no such transaction waits, or it is not the faucet's.
        """
        node = self._node
        entry = node.pool.entries.get(tx_id)
        if entry is None or any(coin.output.script != self.script for coin in entry.spent):
            raise NotFound("Transaction not in mempool, or not of the faucet")
        inputs = [Input(outpoint) for outpoint in entry.packed.spends]
        amounts = [coin.output.amount for coin in entry.spent]
        leaving = node.pool.descendants([tx_id])
        size = -(-(OVERHEAD_WEIGHT + 4 * 43 + len(inputs) * KEY_HASH_INPUT_WEIGHT) // 4)
        least = sum(node.pool.entries[one].fee for one in leaving)
        least += fee_at(node.settings.incremental_rate, size)
        fee = max(least, fee_at(max((entry.rate or 0) + 1_000, rate or 0), size))
        body = Transaction(tuple(inputs), (Output(sum(amounts) - fee, script or self.script),))
        return node.take(node.examine(self._sign(body, amounts)))

    def _compose(self, outputs: Sequence[Output], rate: int) -> Packed | None:
        weight = OVERHEAD_WEIGHT + sum(map(output_weight, outputs))
        wanted = sum(output.amount for output in outputs)
        back = Output(0, self.script)
        inputs: list[Input] = []
        amounts: list[int] = []
        for outpoint, amount in self._coins():
            inputs.append(Input(outpoint))
            amounts.append(amount)
            weight += KEY_HASH_INPUT_WEIGHT
            fee = fee_at(rate, -(-(weight + output_weight(back)) // 4))
            rest = sum(amounts) - wanted - fee
            if rest >= 0:
                paid = [*outputs]
                if rest >= dust_limit(self.script):
                    paid.append(replace(back, amount=rest))
                return self._sign(Transaction(tuple(inputs), tuple(paid)), amounts)
        return None

    def _coins(self) -> list[tuple[Outpoint, int]]:
        """Return own coins that can be spent, confirmed ones, in a fixed order."""
        node = self._node
        height = node.chain.height + 1
        found = [
            (coin.height, outpoint, coin.output.amount)
            for outpoint, coin in node.chain.coins.items()
            if coin.output.script == self.script
            and outpoint not in node.pool.spenders
            and not (coin.is_coinbase and height - coin.height < COINBASE_MATURITY)
        ]
        return [(outpoint, amount) for _, outpoint, amount in sorted(found)]

    def _sign(self, body: Transaction, amounts: Sequence[int]) -> Packed:
        spent = [Spent(Output(amount, self.script)) for amount in amounts]
        signed = tuple(
            replace(item, witness=(self._prove(digest), self._public))
            for item, digest in zip(body.inputs, signing_digests(body, spent), strict=True)
        )
        return Packed.of(replace(body, inputs=signed))

    def _prove(self, digest: bytes) -> bytes:
        return bytes(self._key.sign(digest, hasher=None)) + bytes([SIGHASH_ALL])
