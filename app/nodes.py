"""The providers of a chain, as the settings name them.

``CAUSEWAY_EVM_URL`` names one or more, separated by blanks. What else there is to say about one
stands behind its ``#``, which is never sent anywhere::

    https://a.example/v3/KEY#name=alpha&per_second=25&burst=50  http://10.0.0.5:8545#name=own

``CAUSEWAY_EVM_QUORUM`` says how many of them must agree before anything is believed; more than half,
unless it is set. ``CAUSEWAY_EVM_WS_URL`` names addresses that announce new heads (``ws://…``).
"""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from chain.evm.heads import HeadFeed
from chain.evm.providers import Provider, ProviderSet, provider_set
from chain.rate_limit import RateLimit
from kernel.errors import BadInput
from kernel.settings import Settings
from registry.model import Chain

VARIABLE: Final = "CAUSEWAY_EVM_URL"
QUORUM_VARIABLE: Final = "CAUSEWAY_EVM_QUORUM"
WS_VARIABLE: Final = "CAUSEWAY_EVM_WS_URL"
SCHEMES: Final = frozenset({"http", "https"})
WS_SCHEMES: Final = frozenset({"ws", "wss"})
OPTIONS: Final = frozenset({"name", "per_second", "burst"})


def evm_providers(settings: Settings, chain: Chain, url: str) -> ProviderSet:
    """Return the providers of *chain* that *url* names; nothing is opened yet.

    Raises:
        BadInput: an address that is none, an unknown option, or a quorum that cannot be.
    """
    providers = read_providers(url)
    quorum = settings.evm_quorum or len(providers) // 2 + 1
    if quorum > len(providers):
        raise BadInput(
            f"{QUORUM_VARIABLE} is {quorum}, and {VARIABLE} names {len(providers)}",
            remedy="Name more providers, or ask for fewer to agree",
        )
    return provider_set(providers, chain=chain.code, network_id=chain.network_id, quorum=quorum)


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


def _read(number: int, word: str) -> Provider:
    what = f"provider {number}"
    parts = _address(what, word, VARIABLE, SCHEMES)
    options = _options(what, parts)
    limit = None
    if "per_second" in options:
        per_second = _count(what, "per_second", options["per_second"])
        limit = RateLimit(per_second, _count(what, "burst", options.get("burst", str(per_second))))
    elif "burst" in options:
        raise BadInput(f"{what} has a burst and no per_second", where=VARIABLE)
    return Provider(urlunsplit(parts._replace(fragment="")), options.get("name"), limit)


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


def _options(what: str, parts: SplitResult) -> dict[str, str]:
    if not parts.fragment:
        return {}
    known = f"Known are {', '.join(sorted(OPTIONS))}: #name=alpha&per_second=25"
    try:
        pairs = parse_qsl(parts.fragment, strict_parsing=True)
    except ValueError as error:
        raise BadInput(
            f"{what} has options that cannot be read", where=VARIABLE, remedy=known
        ) from error
    options = dict(pairs)
    if len(options) != len(pairs) or not options.keys() <= OPTIONS:
        raise BadInput(f"{what} has an unknown option, or one twice", where=VARIABLE, remedy=known)
    return options


def _count(what: str, name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise BadInput(f"{what} has {name} {text!r}", where=VARIABLE, remedy="Write a whole number")
    return int(text)
