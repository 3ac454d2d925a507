"""A transaction that people sign by hand: what it says, in words, and what may come back. Pure.

What goes out is built from the intent. What comes back is a file that passed through other hands and
other programs: of it only signatures are taken, each verified over the transaction that went out.
Whatever else it says must not contradict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from chain.bitcoin.addresses import address_of
from chain.bitcoin.digests import SIGHASH_ALL, signing_digests
from chain.bitcoin.fees import rate_of
from chain.bitcoin.psbt import Psbt, PsbtInput, PsbtOutput, create, spent_output, spent_outputs
from chain.bitcoin.psbt_finish import combine, extract, finalise, verify_witness
from chain.bitcoin.signing import SignedTransaction, read_signed, signers_of, verify_signature
from chain.bitcoin.transactions import Transaction, encode
from chain.errors import BadTransaction
from custody.bitcoin.cold_keys import WalletKeys
from custody.errors import NotPossible

Place = tuple[int, int]
"""Branch and index below the account of a wallet."""


@dataclass(frozen=True, slots=True)
class OutputTold:
    """An output in words; *place* is where it comes back to the wallet, None: it leaves."""

    amount: int
    address: str
    place: Place | None


@dataclass(frozen=True, slots=True)
class ColdStory:
    """What a partially signed transaction does, for people to compare.

    Attributes:
        inputs: coins spent; *strange*: those of them that are not proved to be the wallet's.
        signed: valid signatures of each input; *required*: how many it takes.
        fee: satoshi, by the amounts that signatures commit to; *rate*: sat/kvB, estimated while it
            is not signed.
    """

    tx_id: str
    outputs: tuple[OutputTold, ...]
    inputs: int
    strange: int
    brought: int
    fee: int
    rate: int
    signed: tuple[int, ...]
    required: int

    @property
    def is_complete(self) -> bool:
        """Tell whether every input has the signatures that it takes."""
        return min(self.signed) >= self.required


def build(
    unsigned: Transaction,
    coins: Sequence[tuple[int, Place]],
    keys: WalletKeys,
    change: tuple[bytes, Place] | None,
) -> Psbt:
    """Return what people are given to sign.

    Args:
        unsigned: the transaction.
        coins: amount and place of what each input spends.
        keys: the wallet's.
        change: script and place of what comes back; None: nothing does.
    """
    inputs = [keys.known_input(amount, *place) for amount, place in coins]
    outputs = [
        keys.known_output(*change[1])
        if change is not None and output.script == change[0]
        else PsbtOutput()
        for output in unsigned.outputs
    ]
    return create(unsigned, inputs, outputs)


def tell(psbt: Psbt, keys: WalletKeys) -> ColdStory:
    """Return what a partially signed transaction does with the coins of a wallet.

    Raises:
        BadTransaction: it does not say what it spends, or spends less than it pays.
    """
    transaction = psbt.transaction
    spent = [spent_output(psbt, place) for place in range(len(psbt.inputs))]
    brought = sum(item.amount for item in spent)
    fee = brought - sum(item.amount for item in transaction.outputs)
    if fee < 0:
        raise BadTransaction(f"it pays {-fee} satoshi more than it spends")
    outputs = tuple(
        OutputTold(
            item.amount,
            address_of(item.script, keys.network) or f"script {item.script.hex()[:80]}",
            keys.find_place(item.script, known),
        )
        for item, known in zip(transaction.outputs, psbt.outputs, strict=True)
    )
    ours = [
        keys.find_place(item.script, known) is not None
        for item, known in zip(spent, psbt.inputs, strict=True)
    ]
    weight = transaction.weight + 2 + len(spent) * (keys.input_weight - 4 * 41)
    return ColdStory(
        tx_id=transaction.tx_id,
        outputs=outputs,
        inputs=len(spent),
        strange=ours.count(False),
        brought=brought,
        fee=fee,
        rate=rate_of(fee, -(-weight // 4)),
        signed=count_signatures(psbt, keys.required),
        required=keys.required,
    )


def count_signatures(psbt: Psbt, required: int) -> tuple[int, ...]:
    """Return how many valid signatures each input has; what is finished has all that it takes."""
    spent = spent_outputs(psbt)
    try:
        digests = signing_digests(psbt.transaction, spent)
    except BadTransaction:
        # Inputs of another kind, or without their script: nobody can say what their signers sign.
        return (0,) * len(spent)
    counts = []
    for known, found, digest in zip(psbt.inputs, spent, digests, strict=True):
        keys = signers_of(found, list(known.signatures))
        valid = sum(_holds(key, digest, known.signatures[key]) for key in keys)
        counts.append(required if known.final_witness else valid)
    return tuple(counts)


def _holds(key: bytes, digest: bytes, signature: bytes) -> bool:
    try:
        verify_signature(key, digest, signature)
    except BadTransaction:
        return False
    return True


def check_part(meant: Psbt, part: Psbt, keys: WalletKeys) -> None:
    """Refuse a file that says something else than what was given out.

    Raises:
        NotPossible: names what is different: inputs, outputs, what comes back, amounts, fee.
    """
    out, back = meant.transaction, part.transaction
    if back.inputs != out.inputs:
        raise NotPossible("the file spends other coins than what was given out")
    if back.outputs != out.outputs:
        raise NotPossible(
            f"the file pays something else: {_difference(meant, part, keys)}",
            remedy="Sign the file that was exported, and find out who made this one",
        )
    if back != out:
        raise NotPossible("the file is another version of the transaction, or has a lock time")
    for place, (known, told) in enumerate(zip(meant.inputs, part.inputs, strict=True)):
        _check_input(place, known, told, spent_output(meant, place).amount)
    for place, (ours, theirs) in enumerate(zip(meant.outputs, part.outputs, strict=True)):
        _check_output(place, ours, theirs)


def _check_output(place: int, ours: PsbtOutput, theirs: PsbtOutput) -> None:
    if not ours.derivations:
        return
    if set(theirs.derivations) - set(ours.derivations):
        raise NotPossible(f"output {place} comes back by the file to keys that are not ours")
    if theirs.witness_script not in {None, ours.witness_script}:
        raise NotPossible(f"output {place} comes back by the file to another script")


def _check_input(place: int, known: PsbtInput, told: PsbtInput, amount: int) -> None:
    if told.witness_utxo is not None and told.witness_utxo != known.witness_utxo:
        raise NotPossible(
            f"input {place} spends {told.witness_utxo.amount} satoshi by the file, and {amount} by"
            " the chain: the fee would be another"
        )
    if told.witness_script not in {None, known.witness_script}:
        raise NotPossible(f"input {place} has another script by the file")
    if told.sighash not in {None, SIGHASH_ALL}:
        raise NotPossible(f"input {place} would be signed without the whole transaction")


def _difference(meant: Psbt, part: Psbt, keys: WalletKeys) -> str:
    out = {(item.script, item.amount) for item in meant.transaction.outputs}
    back = {(item.script, item.amount) for item in part.transaction.outputs}

    def words(items: set[tuple[bytes, int]]) -> str:
        told = [
            f"{amount} to {address_of(script, keys.network) or script.hex()[:80]}"
            for script, amount in sorted(items)
        ]
        return ", ".join(told) or "nothing"

    return f"{words(back - out)} instead of {words(out - back)}"


def finish(meant: Psbt, parts: Sequence[Psbt], keys: WalletKeys) -> SignedTransaction:
    """Return the signed transaction of what people brought back.

    Raises:
        NotPossible: a file says something else than what was given out, or signatures are missing.
        BadTransaction: a signature is false.
    """
    if not parts:
        raise NotPossible("no signed file was given")
    for part in parts:
        check_part(meant, part, keys)
    signatures = combine([_signatures_of(meant, part) for part in parts])
    whole = _take_finished(combine([meant, signatures]), parts)
    missing = [
        f"input {place} has {count} of {keys.required} signatures"
        for place, count in enumerate(count_signatures(whole, keys.required))
        if count < keys.required
    ]
    if missing:
        raise NotPossible(missing[0], remedy="Give all the signed files, or have more people sign")
    raw = encode(extract(finalise(whole)))
    return read_signed(raw, meant.transaction, spent_outputs(meant))


def _signatures_of(meant: Psbt, part: Psbt) -> Psbt:
    inputs = tuple(PsbtInput(signatures=item.signatures) for item in part.inputs)
    return Psbt(meant.transaction, inputs, tuple(PsbtOutput() for _ in meant.outputs))


def _take_finished(whole: Psbt, parts: Sequence[Psbt]) -> Psbt:
    """Return it with a witness that another program has finished, where there is one that holds."""
    spent = spent_outputs(whole)
    digests = signing_digests(whole.transaction, spent)
    inputs = []
    for place, known in enumerate(whole.inputs):
        finished = [item.inputs[place].final_witness for item in parts]
        witness = next((item for item in finished if item is not None), None)
        if witness is not None:
            verify_witness(spent[place], digests[place], witness)
            known = replace(known, final_witness=witness)  # noqa: PLW2901  the same input, finished
        inputs.append(known)
    return replace(whole, inputs=tuple(inputs))


def story_facts(story: ColdStory) -> Mapping[str, str]:
    """Return the story for a person to read: what leaves, what comes back, what it costs."""
    leaving = [f"{item.amount} to {item.address}" for item in story.outputs if not item.place]
    coming = [
        f"{item.amount} to {item.address} ({item.place[0]}/{item.place[1]})"
        for item in story.outputs
        if item.place
    ]
    return {
        "transaction": story.tx_id,
        "spends": f"{story.brought} satoshi in {story.inputs} coins",
        "not the wallet's": "nothing" if not story.strange else f"{story.strange} coins",
        "leaves": "; ".join(leaving) or "nothing",
        "comes back": "; ".join(coming) or "nothing",
        "fee": f"{story.fee} satoshi ({story.rate} sat/kvB)",
        "signatures": f"{min(story.signed)} of {story.required}",
    }
