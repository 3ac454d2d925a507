from __future__ import annotations

import pytest

from chain.evm.refusals import SendWord, read_refusal, says_block_gone, says_call_fails


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


@pytest.mark.parametrize(
    ("code", "message", "gone"),
    [
        (-32000, "header not found", True),
        (-32000, "header for hash not found", True),
        (-32000, "hash is not currently canonical", True),
        (-32000, "missing trie node 0xab (path )", True),
        (-32000, "unknown block", True),
        (-32001, "Resource not found", True),
        (-32000, "block 0x2222 not found", True),
        (-32000, "block #153 not found", True),
        (-32000, "transaction not found", False),
        (-32601, "Method not found", False),
        (-32005, "limit exceeded", False),
        (-32000, "execution aborted (timeout = 5s)", False),
    ],
)
def test_a_block_is_gone_only_when_the_node_says_so(code: int, message: str, gone: object) -> None:
    assert says_block_gone(code, message) is gone


@pytest.mark.parametrize(
    ("code", "message", "fails"),
    [
        (3, "execution reverted: BalanceTooLow", True),
        (3, "", True),
        (-32000, "execution reverted", True),
        (-32000, "insufficient funds for transfer", True),
        (-32000, "gas required exceeds allowance (21000)", True),
        (-32601, "Method not found", False),
        (-32000, "header not found", False),
    ],
)
def test_a_call_fails_only_when_the_node_ran_it(code: int, message: str, fails: object) -> None:
    assert says_call_fails(code, message) is fails
