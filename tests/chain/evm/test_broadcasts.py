from __future__ import annotations

import pytest

from chain.evm.broadcasts import SendWord, read_refusal


@pytest.mark.parametrize(
    ("message", "word"),
    [
        ("already known", SendWord.ALREADY_KNOWN),
        ("ALREADY_EXISTS: already known", SendWord.ALREADY_KNOWN),
        ("AlreadyKnown", SendWord.ALREADY_KNOWN),
        ("transaction already imported", SendWord.ALREADY_KNOWN),
        ("[0xabcd] already imported", SendWord.ALREADY_KNOWN),
        ("nonce too low", SendWord.NONCE_SPENT),
        ("nonce too low: next nonce 5, tx nonce 4", SendWord.NONCE_SPENT),
        ("invalid sender", SendWord.INVALID),
        ("invalid chain id for signer: have 1 want 2", SendWord.INVALID),
        ("intrinsic gas too low: gas 20000, minimum needed 21000", SendWord.INVALID),
        ("rlp: input string too long for uint64", SendWord.INVALID),
        ("Failed to decode signed transaction", SendWord.INVALID),
        # All that follows may be otherwise a minute later, or on another node.
        ("insufficient funds for gas * price + value", SendWord.NOT_NOW),
        ("replacement transaction underpriced", SendWord.NOT_NOW),
        ("transaction underpriced: tip needed 1, tip permitted 0", SendWord.NOT_NOW),
        ("max fee per gas less than block base fee", SendWord.NOT_NOW),
        ("nonce too high", SendWord.NOT_NOW),
        ("txpool is full", SendWord.NOT_NOW),
        ("exceeds block gas limit", SendWord.NOT_NOW),
        ("unknown transaction type", SendWord.NOT_NOW),
        ("transaction type not supported", SendWord.NOT_NOW),
        ("rate limit exceeded", SendWord.NOT_NOW),
        ("", SendWord.NOT_NOW),
    ],
)
def test_only_what_follows_from_the_bytes_themselves_is_final(message: str, word: SendWord) -> None:
    assert read_refusal(message) is word
