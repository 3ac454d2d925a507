"""Bitcoin's own consensus code says whether the inputs of a transaction may spend what they spend.

libbitcoinkernel is the validation engine of Bitcoin Core as a library; ``py-bitcoinkernel`` binds it.
It is optional (extra ``bitcoin-kernel``): where it is installed, signed bytes pass it before a node
sees them, so that a wrong signature is found before it is sent, and by code that is not ours.

It answers yes or no and gives no reason. It knows the rules of consensus, not those of relay.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import threading
from collections.abc import Sequence
from typing import Any, Final

from chain.bitcoin.transactions import Output, Transaction, decode
from chain.errors import BadTransaction
from kernel.errors import Refused

MODULE: Final = "pbk"
INSTALL: Final = "pip install 'causeway[bitcoin-kernel]'"


class KernelMissing(Refused):
    """libbitcoinkernel is not installed here."""


def is_available() -> bool:
    """Tell whether libbitcoinkernel is installed; nothing is loaded for the answer."""
    return importlib.util.find_spec(MODULE) is not None


_LOADING: Final = threading.Lock()


def load_kernel() -> Any:
    """Return the binding's module. It is loaded at the first call: it costs time and not all have it.

    Raises:
        KernelMissing: it is not installed.
    """
    if not is_available():
        raise KernelMissing("libbitcoinkernel is not installed", remedy=INSTALL)
    module = importlib.import_module(MODULE)
    with _LOADING:
        _silence(module)
    return module


@functools.cache
def _silence(module: Any) -> None:
    """Turn the library's log off: without a listener it is kept in memory for one that may come.

    The library ends the process where it is told so twice, and a cache alone lets two threads in.
    """
    module.capi.bindings.btck_logging_disable()


def verify_inputs(raw: bytes, spent: Sequence[Output]) -> None:
    """Check every input of a signed transaction against the output that it spends.

    Args:
        raw: the signed bytes, as they would be sent.
        spent: what each input spends, in the order of the inputs. Signatures of witness programs
            commit to the amount, so a wrong one is found too.

    Raises:
        BadTransaction: not a transaction, not as many inputs as outputs spent, more is paid than
            spent, or an input's proof does not satisfy the script that it spends.
        KernelMissing: libbitcoinkernel is not installed; ask `is_available` first.
    """
    transaction = decode(raw)
    _check_amounts(transaction, spent)
    refused = refused_input(raw, spent)
    if refused is not None:
        outpoint = transaction.inputs[refused].outpoint
        raise BadTransaction(
            f"the proof of input {refused} does not satisfy the script of {outpoint}",
            where=f"transaction {transaction.tx_id}",
            remedy="Do not send it: the key, the amount or the script is another than the coin's",
        )


def refused_input(raw: bytes, spent: Sequence[Output]) -> int | None:
    """Return the first input whose proof the kernel refuses; None if it takes all of them.

    Raises:
        KernelMissing: libbitcoinkernel is not installed.
    """
    pbk = load_kernel()
    flags = pbk.ScriptVerificationFlags.ALL
    scripts = [pbk.ScriptPubkey(output.script) for output in spent]
    outputs = [
        pbk.TransactionOutput(script, output.amount)
        for script, output in zip(scripts, spent, strict=True)
    ]
    parsed = pbk.Transaction(raw)
    known = pbk.script.PrecomputedTransactionData(parsed, outputs)
    for index, (script, output) in enumerate(zip(scripts, spent, strict=True)):
        if not script.verify(output.amount, parsed, known, index, flags):
            return index
    return None


def _check_amounts(transaction: Transaction, spent: Sequence[Output]) -> None:
    if len(spent) != len(transaction.inputs):
        raise BadTransaction(f"{len(transaction.inputs)} inputs spend {len(spent)} outputs")
    paid = sum(output.amount for output in transaction.outputs)
    available = sum(output.amount for output in spent)
    if paid > available:
        raise BadTransaction(f"{paid} satoshi are paid, {available} are spent")
