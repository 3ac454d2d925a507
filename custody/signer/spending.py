"""A Bitcoin transaction that was allowed: signed, written down, counted again from what was written."""

from __future__ import annotations

from collections.abc import Callable

from chain.bitcoin.digests import signing_digests
from chain.bitcoin.signing import assemble, encode_signature, verify_signature, witness_of
from custody.signer.backends.port import KeyBackend
from custody.signer.spend_decision import SpendAllowed
from custody.signer.spend_memory import SpendBody
from custody.signer.windows import Spent
from custody.signer.wire import SpendIntent


def sign_inputs(
    keys: KeyBackend,
    public_key_of: Callable[[str], bytes],
    intent: SpendIntent,
    allowed: SpendAllowed,
) -> bytes:
    """Return the signed transaction, every signature verified and the whole read again.

    Raises:
        BadTransaction: a backend signed with another key than it showed.
    """
    digests = signing_digests(allowed.transaction, allowed.spent)
    witnesses = []
    for item, spent, digest in zip(intent.inputs, allowed.spent, digests, strict=True):
        signature = keys.sign_digest(item.key_path, digest)
        public_key = public_key_of(item.key_path)
        written = encode_signature(signature.r, signature.s)
        verify_signature(public_key, digest, written)
        witnesses.append(witness_of(spent, {public_key: written}))
    return assemble(allowed.transaction, allowed.spent, witnesses).raw


def spend_body(
    intent: SpendIntent, unsigned: bytes, raw: bytes, allowed: SpendAllowed, *, is_first: bool
) -> SpendBody:
    """Return the record of a signed Bitcoin transaction."""
    return SpendBody(
        intent=intent,
        unsigned=unsigned,
        raw=raw,
        approvers=allowed.approvers,
        auto=allowed.auto,
        is_first=is_first,
        fee=str(allowed.counted[0].fee),
    )


def counted_of(body: SpendBody) -> list[Spent]:
    """Return what a recorded Bitcoin transaction adds to the windows."""
    intent, auto = body.intent, set(body.auto)
    fees = Spent(
        (intent.chain_id, "", None),
        0,
        int(body.fee),
        leaves=False,
        auto=False,
        cancels=intent.kind == "cancel",
    )
    lines = intent.lines if body.is_first else []
    return [
        fees,
        *(
            Spent(
                (intent.chain_id, line.asset, None),
                line.amount,
                0,
                leaves=line.kind == "pay",
                auto=str(line.payout_id) in auto,
            )
            for line in lines
        ),
    ]
