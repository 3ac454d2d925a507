"""What tests do to a real node: coins of known keys, payments, branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from coincurve import PrivateKey

from chain.bitcoin.addresses import address_of, parse_address
from chain.bitcoin.digests import SIGHASH_ALL, Spent, signing_digests
from chain.bitcoin.gateway import BitcoinGateway
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.scripts import witness_key_hash_script
from chain.bitcoin.transactions import Input, Outpoint, Output, Transaction, encode
from chain.simulators.bitcoind import COOKIE, Bitcoind

FEE = 2_000
MATURITY = 100


@dataclass(frozen=True)
class Key:
    """A key and the address that it can spend from."""

    number: int

    @property
    def secret(self) -> PrivateKey:
        return PrivateKey(bytes([self.number]) * 32)

    @property
    def script(self) -> bytes:
        return witness_key_hash_script(bytes(self.secret.public_key.format()))

    @property
    def address(self) -> str:
        found = address_of(self.script, REGTEST)
        assert found is not None
        return found


OURS, CHANGE, CLIENT, STRANGER, MINER = (Key(number) for number in range(1, 6))


@dataclass
class Coin:
    """An output that a key of ours can spend."""

    outpoint: Outpoint
    amount: int
    key: Key


def sign(
    coins: Sequence[Coin], payments: Sequence[tuple[str, int]], *, sequence: int = 0xFFFFFFFD
) -> Transaction:
    """Return a signed transaction; what the payments leave is the fee."""
    outputs = tuple(Output(amount, parse_address(to, REGTEST)) for to, amount in payments)
    inputs = tuple(Input(coin.outpoint, sequence) for coin in coins)
    unsigned = Transaction(inputs, outputs)
    spent = [Spent(Output(coin.amount, coin.key.script)) for coin in coins]
    signed = []
    for item, coin, digest in zip(inputs, coins, signing_digests(unsigned, spent), strict=True):
        proof = coin.key.secret.sign(digest, hasher=None) + bytes([SIGHASH_ALL])
        public = bytes(coin.key.secret.public_key.format())
        signed.append(Input(item.outpoint, item.sequence, witness=(proof, public)))
    return Transaction(tuple(signed), outputs)


def split(coin: Coin, payments: Sequence[tuple[str, int]], fee: int = FEE) -> Transaction:
    """Return a payment whose rest goes back to where it came from."""
    rest = coin.amount - sum(amount for _, amount in payments) - fee
    return sign([coin], [*payments, (coin.key.address, rest)])


@dataclass
class Yard:
    """A real node with coins."""

    node: Bitcoind
    coins: list[Coin] = field(default_factory=list)

    def gateway(self) -> BitcoinGateway:
        """Return a gateway to the node; it is not opened."""
        cookie = self.node.folder / COOKIE
        return BitcoinGateway(self.node.url, chain="bitcoin", network=REGTEST, cookie=cookie)

    async def mine(self, blocks: int = 1, to: str = MINER.address) -> list[str]:
        """Mine blocks with what waits; return their hashes."""
        hashes: list[str] = await self.node.call("generatetoaddress", blocks, to)
        return hashes

    async def mine_exactly(self, *transactions: Transaction) -> str:
        """Mine one block with exactly these transactions."""
        raws = [encode(item).hex() for item in transactions]
        made = await self.node.call("generateblock", MINER.address, raws)
        found: str = made["hash"]
        return found

    async def fund(self, key: Key = STRANGER, count: int = 1) -> list[Coin]:
        """Mine coins for a key, and until they can be spent."""
        hashes = await self.mine(count, key.address)
        await self.mine(MATURITY)
        made = []
        for block_hash in hashes:
            block = await self.node.call("getblock", block_hash, 2)
            outpoint = Outpoint(block["tx"][0]["txid"], 0)
            made.append(Coin(outpoint, round(block["tx"][0]["vout"][0]["value"] * 10**8), key))
        self.coins += made
        return made

    async def send(self, item: Transaction) -> str:
        """Hand a transaction to the node."""
        tx_id: str = await self.node.call("sendrawtransaction", encode(item).hex())
        return tx_id

    async def rewind(self, depth: int) -> None:
        """Take the newest blocks away; what was in them waits again."""
        height = await self.node.call("getblockcount")
        await self.node.call(
            "invalidateblock", await self.node.call("getblockhash", height - depth + 1)
        )
