"""Which providers the settings name, and how many must agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.nodes import bitcoin_nodes, evm_providers, head_feed, read_nodes, read_providers
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.node_set import BitcoinNode
from chain.evm.providers import Provider
from chain.rate_limit import RateLimit
from kernel.errors import BadInput
from kernel.settings import Secret, Settings
from registry.model import BITCOIN, Chain

CHAIN = Chain("evm", "evm", 31337, "ETH")


def test_addresses_are_separated_by_blanks_and_say_more_behind_a_hash() -> None:
    text = """
        https://a.example/v3/KEY#name=alpha&per_second=25&burst=50
        http://10.0.0.5:8545#per_second=7
        http://[::1]:8545
    """
    assert read_providers(text) == [
        Provider("https://a.example/v3/KEY", "alpha", RateLimit(25, 50)),
        Provider("http://10.0.0.5:8545", None, RateLimit(7, 7)),
        Provider("http://[::1]:8545"),
    ]


@pytest.mark.parametrize(
    ("count", "asked", "quorum"), [(1, 0, 1), (2, 0, 2), (3, 0, 2), (4, 0, 3), (3, 3, 3), (3, 1, 1)]
)
def test_more_than_half_agree_unless_it_is_set(count: int, asked: int, quorum: int) -> None:
    url = " ".join(f"http://node-{number}" for number in range(count))
    assert evm_providers(Settings(evm_quorum=asked), CHAIN, url).quorum == quorum


def test_more_than_there_are_cannot_agree() -> None:
    with pytest.raises(BadInput, match="CAUSEWAY_EVM_QUORUM is 3, and CAUSEWAY_EVM_URL names 2"):
        evm_providers(Settings(evm_quorum=3), CHAIN, "http://a http://b")


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("node:8545", "provider 2 is not an address"),
        ("ws://secret:key@node", "provider 2 is not an address"),
        ("http://", "provider 2 is not an address"),
        ("http://[secret", "provider 2 is not an address"),
        ("http://node/secret#color=red", "provider 2 has an unknown option"),
        ("http://node/secret#name=a&name=b", "provider 2 has an unknown option, or one twice"),
        ("http://node/secret#name", "provider 2 has options that cannot be read"),
        ("http://node/secret#per_second=many", "provider 2 has per_second 'many'"),
        ("http://node/secret#per_second=0", "rate limit"),
        ("http://node/secret#burst=5", "provider 2 has a burst and no per_second"),
    ],
)
def test_a_provider_that_cannot_be_read_is_named_by_number_and_its_key_is_not_shown(
    word: str, words: str
) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        read_providers(f"http://fine {word}")
    assert "secret" not in str(caught.value)


def test_new_heads_are_heard_over_web_sockets_where_some_are_named() -> None:
    assert head_feed(Settings()).urls == []
    feed = head_feed(Settings(evm_ws_url="ws://a:8546  wss://b.example/KEY"))
    assert feed.urls == ["ws://a:8546", "wss://b.example/KEY"]
    with pytest.raises(BadInput, match=r"provider 2 is not an address \(CAUSEWAY_EVM_WS_URL\)"):
        head_feed(Settings(evm_ws_url="ws://a http://secret"))


BITCOIN_CHAIN = Chain("bitcoin", BITCOIN, REGTEST.network_id, "BTC")


def test_a_node_of_bitcoin_lets_us_in_by_its_cookie_or_by_a_password_not_shown() -> None:
    text = """
        http://127.0.0.1:8332#name=core&cookie=/var/lib/bitcoind/.cookie
        http://watcher:s%40cret@10.0.0.6:8332/#per_second=7
    """
    assert read_nodes(text) == [
        BitcoinNode("http://127.0.0.1:8332", "core", Path("/var/lib/bitcoind/.cookie")),
        BitcoinNode(
            "http://10.0.0.6:8332/",
            user="watcher",
            password=Secret("s@cret"),
            limit=RateLimit(7, 7),
        ),
    ]
    assert "s@cret" not in repr(read_nodes(text))


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("node:8332", "node 2 is not an address"),
        ("http://node", "node 2 has no way in"),
        ("http://user@node", "node 2 has no way in"),
        ("http://user:secret@node#cookie=/a", "node 2 has two ways in"),
        ("http://user:secret@node#color=red", "node 2 has an unknown option"),
        ("http://user:secret@node#per_second=many", "node 2 has per_second 'many'"),
    ],
)
def test_a_node_that_cannot_be_read_is_named_by_number_and_its_password_is_not_shown(
    word: str, words: str
) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        read_nodes(f"http://a:b@fine {word}")
    assert "secret" not in str(caught.value)


def test_more_than_half_of_the_nodes_of_bitcoin_agree_unless_it_is_set() -> None:
    three = "http://a#cookie=/a http://b#cookie=/b http://c#cookie=/c"
    assert bitcoin_nodes(Settings(), BITCOIN_CHAIN, three).quorum == 2
    assert bitcoin_nodes(Settings(bitcoin_quorum=3), BITCOIN_CHAIN, three).quorum == 3
    with pytest.raises(BadInput, match="CAUSEWAY_BITCOIN_QUORUM is 4"):
        bitcoin_nodes(Settings(bitcoin_quorum=4), BITCOIN_CHAIN, three)
    with pytest.raises(BadInput, match="named twice"):
        bitcoin_nodes(Settings(), BITCOIN_CHAIN, "http://a#cookie=/a http://a/#cookie=/a")
    with pytest.raises(BadInput, match="network id of no Bitcoin network"):
        bitcoin_nodes(Settings(), CHAIN, three)
