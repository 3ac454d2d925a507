"""From raw bytes to a transaction, and from a request to raw bytes signed by a development key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import rlp  # type: ignore[import-untyped]  # rlp ships no types
from eth.exceptions import UnrecognizedTransactionType
from eth.vm.forks.prague.transactions import PragueTransactionBuilder
from eth_keys.datatypes import PrivateKey
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from chain.simulators.evm.errors import InvalidParams, TransactionRefused
from chain.simulators.evm.model import Transaction

BLOB_TRANSACTION_TYPE = 3
MAX_RAW_TRANSACTION_BYTES = 128 * 1024  # txMaxSize in geth's core/txpool/legacypool/legacypool.go


@dataclass(frozen=True, slots=True)
class TransactionRequest:
    """A transaction still to be signed, every field decided. ``gas_price`` makes it a legacy one."""

    nonce: int
    gas: int
    to: bytes
    value: int
    data: bytes
    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    gas_price: int | None = None


def decode_transaction(raw: bytes, *, chain_id: int) -> Transaction:
    """Return the signed transaction in *raw* (RLP, or a type byte followed by RLP).

    Raises:
        InvalidParams: the bytes are no transaction.
        TransactionRefused: they are one, for another chain or of a type that is not supported.
    """
    if not raw:
        raise InvalidParams("Failed to decode transaction: it is empty")
    if len(raw) > MAX_RAW_TRANSACTION_BYTES:
        raise TransactionRefused(
            f"oversized data: transaction size {len(raw)}, limit {MAX_RAW_TRANSACTION_BYTES}"
        )
    if raw[0] == BLOB_TRANSACTION_TYPE:
        raise TransactionRefused("transaction type not supported: blob transactions")
    try:
        evm = PragueTransactionBuilder.decode(raw)
        evm.validate()
        evm.check_signature_validity()
        sender = evm.sender
    except (
        rlp.exceptions.RLPException,
        ValidationError,
        UnrecognizedTransactionType,
        BadSignature,
        IndexError,
        TypeError,
    ) as exc:
        raise InvalidParams(f"Failed to decode transaction: {exc}") from exc
    _require_chain(evm, chain_id)
    return _from_evm(evm, sender, raw)


def sign_request(request: TransactionRequest, key: PrivateKey, *, chain_id: int) -> Transaction:
    """Return the request as a transaction signed with a development key."""
    common: dict[str, Any] = {
        "nonce": request.nonce,
        "gas": request.gas,
        "to": request.to,
        "value": request.value,
        "data": request.data,
    }
    if request.gas_price is not None:
        unsigned: Any = PragueTransactionBuilder.create_unsigned_transaction(
            gas_price=request.gas_price, **common
        )
        signed = unsigned.as_signed_transaction(key, chain_id=chain_id)
        raw = rlp.encode(signed)
    else:
        unsigned = PragueTransactionBuilder.new_unsigned_dynamic_fee_transaction(
            chain_id=chain_id,
            max_priority_fee_per_gas=request.max_priority_fee_per_gas,
            max_fee_per_gas=request.max_fee_per_gas,
            access_list=(),
            **common,
        )
        signed = unsigned.as_signed_transaction(key)
        raw = signed.encode()
    return decode_transaction(raw, chain_id=chain_id)


def _require_chain(evm: Any, chain_id: int) -> None:
    found = evm.chain_id
    if found is None:
        raise TransactionRefused("only replay-protected (EIP-155) transactions allowed over RPC")
    if found != chain_id:
        raise TransactionRefused(f"invalid chain id for signer: have {found} want {chain_id}")


def _from_evm(evm: Any, sender: bytes, raw: bytes) -> Transaction:
    return Transaction(
        hash=keccak(raw),
        sender=sender,
        nonce=evm.nonce,
        gas=evm.gas,
        max_fee_per_gas=evm.max_fee_per_gas,
        max_priority_fee_per_gas=evm.max_priority_fee_per_gas,
        to=evm.to,
        value=evm.value,
        data=evm.data,
        raw=raw,
        evm=evm,
    )
