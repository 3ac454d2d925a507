"""A long chain of Bitcoin as a node would serve it: blocks whose hashes, roots and bytes fit together.

Making ten thousand blocks of payments on a real node takes it minutes; here some dozen bodies are made once
and stand in many blocks, under headers that link. There is no proof of work and there are no valid
signatures: whoever only watches verifies neither. The JSON has the members that Bitcoin Core 29 writes.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from typing import Any, Final

from chain.bitcoin.addresses import address_of
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.raw import merkle_root, read_transaction
from chain.bitcoin.scripts import witness_script
from chain.bitcoin.transactions import Input, Outpoint, Output, Transaction, encode
from chain.keys.hashes import double_sha256

GENESIS_TIME: Final = 1_700_000_000
BITS: Final = "207fffff"
VERSION: Final = 0x20000000
SIGNATURE: Final = bytes([0x30]) + bytes(70)
KEY: Final = bytes([2]) + bytes(32)


def script_of(number: int) -> bytes:
    """Return the script of the so-manieth holder."""
    return witness_script(0, hashlib.sha256(number.to_bytes(8, "little")).digest()[:20])


def address_at(number: int) -> str:
    """Return the address of the so-manieth holder."""
    found = address_of(script_of(number), REGTEST)
    assert found is not None
    return found


@dataclass(frozen=True, slots=True)
class Body:
    """The transactions of a block: their merkle root, and as JSON."""

    root: bytes
    transactions: bytes
    count: int


class LongChain:
    """A chain of *blocks* blocks above its first, with *payments* payments each.

    In one of every *ours_every* bodies somebody pays holder 0, and holder 1 pays somebody.
    """

    def __init__(self, blocks: int, payments: int, bodies: int, ours_every: int) -> None:
        """Make it."""
        rng = random.Random(5)
        made = [_body(rng, payments, ours=n % ours_every == 0) for n in range(bodies)]
        self.hashes: list[str] = []
        self._heads: list[bytes] = []
        self._bodies: list[Body] = []
        parent = bytes(32)
        for height in range(blocks + 1):
            parent = self._add(height, parent, made[height % bodies])

    @property
    def height(self) -> int:
        """Return the height of the newest block."""
        return len(self.hashes) - 1

    def header(self, height: int) -> bytes:
        """Return what ``getblockheader`` answers."""
        return self._heads[height] + b"}"

    def block(self, height: int) -> bytes:
        """Return what ``getblock`` with verbosity 3 answers."""
        return self._heads[height] + b', "tx": ' + self._bodies[height].transactions + b"}"

    def _add(self, height: int, parent: bytes, body: Body) -> bytes:
        time = GENESIS_TIME + 600 * height
        raw = b"".join(
            (
                VERSION.to_bytes(4, "little"),
                parent,
                body.root,
                time.to_bytes(4, "little"),
                bytes.fromhex(BITS)[::-1],
                bytes(4),
            )
        )
        found = double_sha256(raw)
        head: dict[str, Any] = {
            "hash": found[::-1].hex(),
            "confirmations": 1,
            "height": height,
            "version": VERSION,
            "merkleroot": body.root[::-1].hex(),
            "time": time,
            "mediantime": time,
            "nonce": 0,
            "bits": BITS,
            "difficulty": 4.656542373906925e-10,
            "nTx": body.count,
        }
        if height:
            head["previousblockhash"] = parent[::-1].hex()
        self.hashes.append(found[::-1].hex())
        self._heads.append(json.dumps(head).encode()[:-1])
        self._bodies.append(body)
        return found


def _body(rng: random.Random, payments: int, *, ours: bool) -> Body:
    minted = Transaction(
        (Input(Outpoint("0" * 64, 0xFFFFFFFF), script=rng.randbytes(8)),),
        (Output(5_000_000_000, script_of(rng.getrandbits(60))),),
    )
    shown = [_shown(minted, [])]
    items = [minted]
    for number in range(payments):
        payer, payee, change = (rng.getrandbits(60) + 10**6 for _ in range(3))
        if ours and number < 2:
            payer, payee = (payer, 0) if number == 0 else (1, payee)
        item = Transaction(
            tuple(
                Input(Outpoint(rng.randbytes(32).hex(), n), witness=(SIGNATURE, KEY))
                for n in range(2)
            ),
            (
                Output(rng.randrange(1, 10**9), script_of(payee)),
                Output(1_234_567, script_of(change)),
            ),
        )
        spent = [Output(rng.randrange(10**9, 10**10), script_of(payer)) for _ in item.inputs]
        items.append(item)
        shown.append(_shown(item, spent))
    root = merkle_root([read_transaction(encode(item)).id for item in items])
    return Body(root, ("[" + ", ".join(shown) + "]").encode(), len(items))


def _shown(item: Transaction, spent: list[Output]) -> str:
    raw = encode(item)
    if spent:
        told = [
            {
                "txid": one.outpoint.tx_id,
                "vout": one.outpoint.index,
                "scriptSig": {"asm": "", "hex": ""},
                "txinwitness": [part.hex() for part in one.witness],
                "prevout": {
                    "generated": False,
                    "height": 100,
                    "value": "AMOUNT" + _coins(output.amount) + "AMOUNT",
                    "scriptPubKey": _script(output.script),
                },
                "sequence": one.sequence,
            }
            for one, output in zip(item.inputs, spent, strict=True)
        ]
    else:
        told = [{"coinbase": item.inputs[0].script.hex(), "sequence": item.inputs[0].sequence}]
    body = {
        "txid": item.tx_id,
        "hash": item.witness_id,
        "version": 2,
        "size": len(raw),
        "vsize": item.virtual_size,
        "weight": item.weight,
        "locktime": 0,
        "vin": told,
        "vout": [
            {
                "value": "AMOUNT" + _coins(output.amount) + "AMOUNT",
                "n": place,
                "scriptPubKey": _script(output.script),
            }
            for place, output in enumerate(item.outputs)
        ],
        "fee": "AMOUNT0.00001000AMOUNT",
        "hex": raw.hex(),
    }
    return json.dumps(body, separators=(",", ":")).replace('"AMOUNT', "").replace('AMOUNT"', "")


def _coins(amount: int) -> str:
    whole, rest = divmod(amount, 100_000_000)
    return f"{whole}.{rest:08}"


def _script(script: bytes) -> dict[str, str]:
    address = address_of(script, REGTEST)
    return {
        "asm": f"0 {script[2:].hex()}",
        "desc": f"addr({address})#00000000",
        "hex": script.hex(),
        "address": str(address),
        "type": "witness_v0_keyhash",
    }
