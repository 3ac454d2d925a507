"""What a node's refusals prove, read from their codes and words. Pure.

That bytes are refused for good is the exception: only what follows from the bytes themselves, whatever the node's pool and
settings, means that they can never be mined. Everything about prices, funds, queues and limits may
change, so those bytes may still be mined and their outcome is unknown.

Sources of the wordings:

- geth ``core/txpool/errors.go`` (``ErrAlreadyKnown``, ``ErrInvalidSender``,
  ``ErrReplaceUnderpriced``, ``ErrUnderpriced``, ``ErrOversizedData``), ``core/error.go``
  (``ErrNonceTooLow``, ``ErrIntrinsicGas``, ``ErrTipAboveFeeCap``, ``ErrFloorDataGas``,
  ``ErrInsufficientFunds``, ``ErrTxTypeNotSupported``), ``core/types/transaction.go``
  (``ErrInvalidSig``) and ``core/types/transaction_signing.go`` (``ErrInvalidChainId``);
- foundry ``crates/anvil/src/eth/error.rs``, ``PoolError`` (``[hash] already imported``) and
  ``InvalidTransactionError``;
- nethermind ``AcceptTxResult``;
- geth ``eth/api_backend.go`` ("header for hash not found", "hash is not currently canonical"),
  ``trie/errors.go`` ("missing trie node"), ``core/vm/errors.go`` ("execution reverted"),
  ``eth/gasestimator`` ("gas required exceeds allowance"), ``internal/ethapi/errors.go`` (code 3);
- geth ``eth/tracers/api.go`` ("block %#x not found", "block #%d not found");
- EIP-1474: codes -32001 "Resource not found", -32005 "Limit exceeded"; JSON-RPC 2.0: -32601.

Matching ignores case: nodes and services in front of them spell the same words differently.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final


class SendWord(StrEnum):
    """What a refusal to take signed bytes means."""

    ALREADY_KNOWN = "already known"
    NONCE_SPENT = "nonce spent"
    INVALID = "invalid for ever"
    NOT_NOW = "not now"


WORDINGS: Final[tuple[tuple[str, SendWord], ...]] = (
    ("already known", SendWord.ALREADY_KNOWN),  # geth ErrAlreadyKnown
    ("already imported", SendWord.ALREADY_KNOWN),  # anvil PoolError::AlreadyImported
    ("alreadyknown", SendWord.ALREADY_KNOWN),  # nethermind AcceptTxResult.AlreadyKnown
    ("nonce too low", SendWord.NONCE_SPENT),  # geth ErrNonceTooLow, anvil NonceTooLow
    ("oldnonce", SendWord.NONCE_SPENT),  # nethermind AcceptTxResult.OldNonce
    ("invalid sender", SendWord.INVALID),  # geth ErrInvalidSender
    ("invalid transaction v, r, s", SendWord.INVALID),  # geth ErrInvalidSig
    ("invalid chain id", SendWord.INVALID),  # geth ErrInvalidChainId, anvil InvalidChainId
    ("intrinsic gas too low", SendWord.INVALID),  # geth ErrIntrinsicGas, anvil GasTooLow
    ("insufficient gas for floor", SendWord.INVALID),  # geth ErrFloorDataGas
    ("max priority fee per gas higher than max fee", SendWord.INVALID),  # geth ErrTipAboveFeeCap
    ("oversized data", SendWord.INVALID),  # geth ErrOversizedData
    ("rlp:", SendWord.INVALID),  # geth rlp/decode.go
    (
        "failed to decode signed transaction",
        SendWord.INVALID,
    ),  # anvil FailedToDecodeSignedTransaction
)


METHOD_UNKNOWN: Final = -32601
LIMIT_EXCEEDED: Final = -32005
RESOURCE_NOT_FOUND: Final = -32001
REVERT_CODE: Final = 3

BLOCK_GONE: Final = (
    "header not found",
    "header for hash not found",
    "hash is not currently canonical",
    "block not found",
    "unknown block",
    "missing trie node",
)
BLOCK_NOT_FOUND: Final = re.compile(r"\bblock #?(0x)?[0-9a-f]+ not found")
CALL_FAILS: Final = (
    "revert",
    "insufficient funds",
    "insufficient balance",
    "gas required exceeds allowance",
    "out of gas",
)
CONTRACT_FAILS: Final = (
    "revert",
    "out of gas",
    "gas required exceeds allowance",
    "invalid opcode",
    "opcode not found",
    "invalidfeopcode",
    "opcodenotfound",
    "invalid jump",
    "invalidjump",
    "stack underflow",
    "stackunderflow",
    "stack limit reached",
    "stackoverflow",
    "return data out of bounds",
    "write protection",
    "statechangeduringstaticcall",
    "bad instruction",
    "vm execution error",
    "vm exception",
)
"""geth ``core/vm/errors.go``, revm's reasons as anvil and reth spell them, OpenEthereum, Ganache."""


UNTRACEABLE: Final = ("genesis is not traceable",)
"""geth ``eth/tracers/api.go``."""
RANGE_TOO_LARGE: Final = (
    "block range",
    "range too large",
    "range is too large",
    "exceed maximum block range",
    "query returned more than",
    "too many results",
    "response size",
    "query timeout",
    "limit exceeded",
)
"""As the providers spell it: Infura, Alchemy, QuickNode, Ankr, Chainstack, geth's query limits."""


def read_refusal(message: str) -> SendWord:
    """Return what a node's error message proves about the bytes that were sent."""
    lowered = message.lower()
    for wording, word in WORDINGS:
        if wording in lowered:
            return word
    return SendWord.NOT_NOW


def says_block_gone(code: int, message: str) -> bool:
    """Tell whether the node refuses because it does not have the block, or not its state."""
    return (
        code == RESOURCE_NOT_FOUND
        or _mentions(message, BLOCK_GONE)
        or BLOCK_NOT_FOUND.search(message.lower()) is not None
    )


def says_untraceable(message: str) -> bool:
    """Tell whether a node that traces refuses only because it was asked for the first block."""
    return _mentions(message, UNTRACEABLE)


def says_range_too_large(code: int, message: str) -> bool:
    """Tell whether the node would answer for fewer blocks."""
    return code == LIMIT_EXCEEDED or _mentions(message, RANGE_TOO_LARGE)


def says_call_fails(code: int, message: str) -> bool:
    """Tell whether the node refuses because the call itself would fail."""
    return code == REVERT_CODE or _mentions(message, CALL_FAILS)


def says_contract_fails(code: int, message: str) -> bool:
    """Tell whether a contract that was only asked something broke off, whatever node is asked."""
    return code == REVERT_CODE or _mentions(message, CONTRACT_FAILS)


def _mentions(message: str, wordings: tuple[str, ...]) -> bool:
    lowered = message.lower()
    return any(wording in lowered for wording in wordings)
