"""Whatever a caller sends, the answer is a result or a JSON-RPC error, never a crash."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chain.simulators.evm.model import EvmSimulatorSettings
from chain.simulators.evm.node import Node
from chain.simulators.evm.params import Params
from chain.simulators.evm.rpc import METHODS, Request, perform
from chain.simulators.testing import token_creation

ADDRESS = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"

hex_texts = st.binary(max_size=40).map(lambda raw: "0x" + raw.hex())
plausible = st.sampled_from(
    [
        *("latest", "pending", "safe", "earliest", "0x0", "0x1", "0x", "", ADDRESS),
        *("0x" + "11" * 32, {"blockHash": "0x" + "11" * 32}, {"blockNumber": "0x0"}, {}),
        {"from": ADDRESS, "to": ADDRESS, "value": "0x1"},
        {"from": ADDRESS, "data": "0x" + token_creation(1).hex()},
        {"to": ADDRESS, "gas": "0x0"},
        {"fromBlock": "earliest", "toBlock": "latest", "topics": [None]},
        [[{"from": ADDRESS, "to": ADDRESS}, 0]],
        [[["0x00"], 0]],
        [10, 50],
    ]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 3)
    | st.floats(allow_nan=False)
    | hex_texts
    | st.text(max_size=5)
    | plausible,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "from",
                    "to",
                    "value",
                    "data",
                    "gas",
                    "nonce",
                    "blockHash",
                    "address",
                    "topics",
                    "fromBlock",
                    "toBlock",
                    "timestamp",
                    "blocks",
                    "gasPrice",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def node() -> Node:
    running = Node(EvmSimulatorSettings(timestamp=1_700_000_000, accounts=2))
    running.mine(3)
    return running


@pytest.mark.parametrize("method", sorted(METHODS))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(params=st.lists(values, max_size=3))
def test_any_parameters_get_an_answer(node: Node, method: str, params: list[Any]) -> None:
    answer = perform(node, Request(1, method, Params(method, tuple(params)))).body

    assert ("result" in answer) != ("error" in answer)
    if "error" in answer:
        assert answer["error"]["code"] in {-32602, -32000, -32003, 3}
        assert answer["error"]["message"]
    assert orjson.loads(orjson.dumps(answer)) == answer
