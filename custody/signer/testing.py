"""A signer for tests and demonstrations: in this process, or the files for one of its own.

The seed is that of a published phrase: never use it where money is.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from custody.control_messages import AssetRule, ControlMessage, WalletPinned
from custody.restore_marks import Shown
from custody.signer.backends.local import LocalKeys
from custody.signer.checkpoints import Places, key_name, make_key, read_key
from custody.signer.client import refusal_of
from custody.signer.hd_keys import PrivateNode
from custody.signer.keystore import seal, write_keystore
from custody.signer.rules import Rules
from custody.signer.service import Signer
from custody.signer.store import Genesis, Memory
from custody.signer.wire import (
    Accepted,
    AskAudit,
    AskCheckpoint,
    AskControl,
    AskHealth,
    AskMark,
    AskSign,
    AskSignMany,
    AskSignSpend,
    AskWitness,
    AskXpub,
    Audited,
    Checkpointed,
    Health,
    Intent,
    MarkIs,
    No,
    Signed,
    SignedApproval,
    SignedMany,
    SignRequest,
    SpendIntent,
    Witnessed,
    Xpub,
)
from kernel.clock import Clock, SystemClock, to_unix_ms
from kernel.private_files import FILE_MODE
from registry.model import Chain, ChainAsset, Operator, Wallet

PHRASE: Final = "abandon " * 11 + "about"
SEED: Final = hashlib.pbkdf2_hmac("sha512", PHRASE.encode(), b"mnemonic", 2048)
"""BIP 39 seed of `PHRASE`; `registry.testing.XPUBS` are its first accounts."""
FEE_CAP_MAX: Final = 10**17


def rules_for(
    chains: Sequence[Chain],
    chain_assets: Sequence[ChainAsset],
    operators: Sequence[Operator],
    *,
    amounts_max: Mapping[str, int] | None = None,
    approvals: int = 1,
    wallets: Sequence[Wallet] = (),
) -> Rules:
    """Return rules that pin these operators and wallets and allow these assets.

    Args:
        chains: network ids by code.
        chain_assets: what may be signed.
        operators: who may approve.
        amounts_max: largest payment by chain asset code, in the chain's units (default: 2**128).
        approvals: people needed for each payment.
        wallets: which account of keys each wallet is; none: names are not checked.
    """
    networks = {chain.code: chain.network_id for chain in chains}
    limits = amounts_max or {}
    return Rules(
        version=1,
        chains=networks,
        operators={item.code: item.public_key.hex() for item in operators},
        fee_cap_max=str(FEE_CAP_MAX),
        assets=[
            AssetRule(
                chain_id=networks[item.chain],
                asset=item.asset,
                contract=item.contract,
                amount_max=str(limits.get(item.code, 2**128)),
                approvals=approvals,
            )
            for item in chain_assets
        ],
        wallets=[
            WalletPinned(version=1, wallet=item.code, chain=item.chain, account_path=item.key_root)
            for item in wallets
        ],
    )


@dataclass(slots=True)
class LocalSigner:
    """The signer's code without its process; implements `custody.ports.PayoutSigner`."""

    signer: Signer

    async def sign(
        self,
        intent: Intent,
        unsigned: bytes,
        approvals: Sequence[SignedApproval],
        *,
        shown: Shown | None = None,
    ) -> bytes:
        """Return the signed bytes."""
        answer = self.signer.answer(AskSign(intent, unsigned, list(approvals), shown))
        if isinstance(answer, Signed):
            return answer.raw
        assert isinstance(answer, No)
        raise refusal_of(answer)

    async def sign_many(
        self,
        requests: Sequence[SignRequest],
        approvals: Sequence[SignedApproval],
        *,
        shown: Shown | None = None,
    ) -> list[Signed | No]:
        """Return one answer for each request."""
        answer = self.signer.answer(AskSignMany(list(requests), list(approvals), shown))
        assert isinstance(answer, SignedMany)
        return answer.answers

    async def sign_spend(
        self,
        intent: SpendIntent,
        psbt: bytes,
        approvals: Sequence[SignedApproval],
        *,
        shown: Shown | None = None,
    ) -> bytes:
        """Return the signed bytes of a Bitcoin transaction."""
        answer = self.signer.answer(AskSignSpend(intent, psbt, list(approvals), shown))
        if isinstance(answer, Signed):
            return answer.raw
        assert isinstance(answer, No)
        raise refusal_of(answer)

    async def account_xpub(self, path: str) -> str:
        """Return the extended public key of the account at *path*."""
        answer = self.signer.answer(AskXpub(path))
        assert isinstance(answer, Xpub)
        return answer.xpub

    async def health(self) -> Health:
        """Return which keys and which store answer."""
        answer = self.signer.answer(AskHealth())
        assert isinstance(answer, Health)
        return answer

    async def control(self, message: ControlMessage) -> Accepted | No:
        """Take a control message."""
        answer = self.signer.answer(AskControl(message))
        assert isinstance(answer, Accepted | No)
        return answer

    async def checkpoint(self, *, since: int = 0) -> Checkpointed:
        """Return the signed checkpoint."""
        answer = self.signer.answer(AskCheckpoint(since))
        assert isinstance(answer, Checkpointed)
        return answer

    async def mark(self, number: int) -> str | None:
        """Return the token of a mark."""
        answer = self.signer.answer(AskMark(number))
        assert isinstance(answer, MarkIs)
        return answer.token

    async def witness(self, shown: Shown) -> int:
        """Keep marks."""
        answer = self.signer.answer(AskWitness(shown))
        if isinstance(answer, Witnessed):
            return answer.number
        assert isinstance(answer, No)
        raise refusal_of(answer)

    async def audit(self, index: int, *, size: int) -> Audited:
        """Return a record of the log, proved."""
        answer = self.signer.answer(AskAudit(index, size))
        assert isinstance(answer, Audited)
        return answer


@contextmanager
def local_signer(
    folder: Path,
    rules: Rules,
    *,
    seed: bytes = SEED,
    clock: Clock | None = None,
    key_id: str = "test",
) -> Iterator[LocalSigner]:
    """Open a signer whose store lies in *folder*; the first time, it begins with *rules*.

    Args:
        clock: the signer's own; the machine's if none is given.
    """
    ticking = clock or SystemClock()
    store, key_path, place = folder / "signed", folder / "signed.key", folder / "checkpoint"
    name = key_name(key_id)
    if store.exists():
        memory = Memory.open(store)
        places = Places(read_key(key_path, name), [place])
    else:
        places = Places(make_key(key_path, name, secrets.token_bytes), [place])
        genesis = Genesis(rules=rules, key_id=key_id, verifier_key=places.key.verifier_key)
        memory = Memory.create(store, genesis, at_ms=to_unix_ms(ticking.now()))
        places.write(memory.log)
    try:
        keys = LocalKeys(key_id, PrivateNode.from_seed(seed))
        yield LocalSigner(Signer.open(keys, memory, places, ticking))
    finally:
        memory.close()


@dataclass(frozen=True, slots=True)
class SignerFiles:
    """What ``python -m custody.signer`` is started with."""

    keystore: Path
    kek: Path
    rules: Path
    store: Path

    @property
    def options(self) -> list[str]:
        """Return the command line's options."""
        named = {
            "--keystore": self.keystore,
            "--kek": self.kek,
            "--rules": self.rules,
            "--store": self.store,
        }
        given = [text for name, path in named.items() for text in (name, str(path))]
        return [*given, "--init"]


def write_signer_files(
    folder: Path, rules: Rules, *, seed: bytes, random: Callable[[int], bytes]
) -> SignerFiles:
    """Write keystore, KEK and rules into *folder*, each with mode 0600."""
    files = SignerFiles(
        folder / "keystore.json",
        folder / "kek.hex",
        folder / "rules.json",
        folder / "signed.sqlite",
    )
    kek = random(32)
    _write_private(files.kek, kek.hex().encode())
    _write_private(files.rules, msgspec.json.encode(rules))
    write_keystore(files.keystore, seal(seed, kek, key_id="local", random=random))
    return files


def _write_private(path: Path, content: bytes) -> None:
    path.touch(mode=FILE_MODE)
    path.chmod(FILE_MODE)
    path.write_bytes(content)
