"""The providers of a chain, as the settings name them.

``CAUSEWAY_EVM_URL`` names one or more, separated by blanks. What else there is to say about one
stands behind its ``#``, which is never sent anywhere::

    https://a.example/v3/KEY#name=alpha&per_second=25&burst=50  http://10.0.0.5:8545#name=own

``CAUSEWAY_EVM_QUORUM`` says how many of them must agree before anything is believed; more than half,
unless it is set. ``CAUSEWAY_EVM_WS_URL`` names addresses that announce new heads (``ws://…``).

``CAUSEWAY_BITCOIN_URL`` and ``CAUSEWAY_BITCOIN_QUORUM`` do the same for nodes of Bitcoin. Each lets
us in by the cookie file that it writes when it starts, or by user and password::

    http://127.0.0.1:8332#name=core&cookie=/var/lib/bitcoind/.cookie  http://user:password@10.0.0.6:8332
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from chain.bitcoin.networks import network_of
from chain.bitcoin.node_set import BitcoinNode, NodeSet, node_set
from chain.evm.heads import HeadFeed
from chain.evm.providers import Provider, ProviderSet, provider_set
from chain.rate_limit import RateLimit
from kernel.errors import BadInput
from kernel.settings import Secret, Settings
from registry.model import Chain

VARIABLE: Final = "CAUSEWAY_EVM_URL"
QUORUM_VARIABLE: Final = "CAUSEWAY_EVM_QUORUM"
WS_VARIABLE: Final = "CAUSEWAY_EVM_WS_URL"
SCHEMES: Final = frozenset({"http", "https"})
WS_SCHEMES: Final = frozenset({"ws", "wss"})
OPTIONS: Final = frozenset({"name", "per_second", "burst"})
BITCOIN_VARIABLE: Final = "CAUSEWAY_BITCOIN_URL"
BITCOIN_QUORUM_VARIABLE: Final = "CAUSEWAY_BITCOIN_QUORUM"
BITCOIN_OPTIONS: Final = OPTIONS | {"cookie"}


def evm_providers(settings: Settings, chain: Chain, url: str) -> ProviderSet:
    """Return the providers of *chain* that *url* names; nothing is opened yet.

    Raises:
        BadInput: an address that is none, an unknown option, or a quorum that cannot be.
    """
    providers = read_providers(url)
    quorum = _quorum(settings.evm_quorum, len(providers), VARIABLE, QUORUM_VARIABLE)
    return provider_set(providers, chain=chain.code, network_id=chain.network_id, quorum=quorum)


def bitcoin_nodes(settings: Settings, chain: Chain, url: str) -> NodeSet:
    """Return the nodes of *chain* that *url* names; nothing is opened yet.

    Raises:
        BadInput: an address that is none, an unknown option, no way in or two, a quorum that cannot
            be, or a chain of no network of Bitcoin.
    """
    nodes = read_nodes(url)
    quorum = _quorum(settings.bitcoin_quorum, len(nodes), BITCOIN_VARIABLE, BITCOIN_QUORUM_VARIABLE)
    network = network_of(chain.network_id)
    return node_set(nodes, chain=chain.code, network=network, quorum=quorum)


def head_feed(settings: Settings) -> HeadFeed:
    """Return what listens for new heads: to nobody, where no address is named.

    Raises:
        BadInput: an address that is none, by its number.
    """
    urls = (settings.evm_ws_url or "").split()
    for number, url in enumerate(urls, start=1):
        _address(f"provider {number}", url, WS_VARIABLE, WS_SCHEMES)
    return HeadFeed(urls)


def read_providers(text: str) -> list[Provider]:
    """Return the providers that *text* names, in order.

    Raises:
        BadInput: says which one cannot be read, by its number: an address may hold a key.
    """
    return [_read(number, word) for number, word in enumerate(text.split(), start=1)]


def read_nodes(text: str) -> list[BitcoinNode]:
    """Return the nodes of Bitcoin that *text* names, in order.

    Raises:
        BadInput: says which one cannot be read, by its number: an address may hold a password.
    """
    return [_read_node(number, word) for number, word in enumerate(text.split(), start=1)]


def _read(number: int, word: str) -> Provider:
    what = f"provider {number}"
    parts = _address(what, word, VARIABLE, SCHEMES)
    options = _options(what, parts, VARIABLE, OPTIONS)
    limit = _limit(what, options, VARIABLE)
    return Provider(urlunsplit(parts._replace(fragment="")), options.get("name"), limit)


def _read_node(number: int, word: str) -> BitcoinNode:
    what = f"node {number}"
    parts = _address(what, word, BITCOIN_VARIABLE, SCHEMES)
    options = _options(what, parts, BITCOIN_VARIABLE, BITCOIN_OPTIONS)
    cookie, password = options.get("cookie"), unquote(parts.password or "")
    if (cookie is None) == (not password):
        raise BadInput(
            f"{what} has {'two ways' if cookie else 'no way'} in",
            where=BITCOIN_VARIABLE,
            remedy="Write http://user:password@host:8332, or http://host:8332#cookie=/path/.cookie",
        )
    place = parts.netloc.rpartition("@")[2]
    return BitcoinNode(
        urlunsplit(parts._replace(netloc=place, fragment="")),
        options.get("name"),
        None if cookie is None else Path(cookie),
        unquote(parts.username or ""),
        Secret(password) if password else None,
        _limit(what, options, BITCOIN_VARIABLE),
    )


def _quorum(asked: int, named: int, variable: str, quorum_variable: str) -> int:
    """Return how many must agree: more than half, unless it was said."""
    quorum = asked or named // 2 + 1
    if quorum > named:
        raise BadInput(
            f"{quorum_variable} is {quorum}, and {variable} names {named}",
            remedy="Name more, or ask for fewer to agree",
        )
    return quorum


def _limit(what: str, options: dict[str, str], variable: str) -> RateLimit | None:
    if "per_second" in options:
        per_second = _count(what, "per_second", options["per_second"], variable)
        burst = _count(what, "burst", options.get("burst", str(per_second)), variable)
        return RateLimit(per_second, burst)
    if "burst" in options:
        raise BadInput(f"{what} has a burst and no per_second", where=variable)
    return None


def _address(what: str, word: str, variable: str, schemes: frozenset[str]) -> SplitResult:
    begins = " or ".join(f"{scheme}://" for scheme in sorted(schemes))
    refusal = BadInput(f"{what} is not an address", where=variable, remedy=f"Write {begins} first")
    try:
        parts = urlsplit(word)
    except ValueError as error:
        raise refusal from error
    if parts.scheme not in schemes or not parts.hostname:
        raise refusal
    return parts


def _options(
    what: str, parts: SplitResult, variable: str, allowed: frozenset[str]
) -> dict[str, str]:
    if not parts.fragment:
        return {}
    known = f"Known are {', '.join(sorted(allowed))}: #name=alpha&per_second=25"
    try:
        pairs = parse_qsl(parts.fragment, strict_parsing=True)
    except ValueError as error:
        raise BadInput(
            f"{what} has options that cannot be read", where=variable, remedy=known
        ) from error
    options = dict(pairs)
    if len(options) != len(pairs) or not options.keys() <= allowed:
        raise BadInput(f"{what} has an unknown option, or one twice", where=variable, remedy=known)
    return options


def _count(what: str, name: str, text: str, variable: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise BadInput(f"{what} has {name} {text!r}", where=variable, remedy="Write a whole number")
    return int(text)
