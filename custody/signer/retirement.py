"""Retired keys: they sign only what moves coins to the keys that replace them, for ever. Pure.

A key is retired when it may be known to somebody, or on its day. Whoever has it then, and the
application too, can do no more with the signer than empty it into the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from custody.signer.errors import SignerRefused
from custody.signer.paths import require_key_name
from custody.signer.wire import Intent


def check_retired(
    retired: Mapping[str, str],
    intent: Intent,
    *,
    is_first: bool,
    address_of: Callable[[str], str],
) -> None:
    """Refuse a payment with a retired key.

    Cancelling stays possible, and so does another fee for what was signed at its nonce before the
    key was retired: neither pays anybody else.

    Args:
        retired: paths of retired keys, and of those that replace them.
        is_first: nothing was signed at the nonce yet.
        address_of: derives the signer's own addresses: a path alone is the asker's word.

    Raises:
        SignerRefused: names the path that replaces it.
    """
    successor = successor_of(retired, intent.key_path)
    if successor is None or intent.kind == "cancel" or not is_first:
        return
    target = intent.destination_path
    is_own = intent.kind == "own" and target is not None and is_below(target, successor)
    if not is_own or target is None or address_of(target) != intent.destination:
        raise SignerRefused(
            f"the key at {intent.key_path} is retired: it pays to {successor} only",
            remedy=f"Move its coins to a wallet at {successor}, and pay from there",
        )


def check_retirement(retired: Mapping[str, str], path: str, successor: str) -> None:
    """Refuse a retirement that contradicts itself or an earlier one.

    Raises:
        SignerRefused: retired already, replaced by itself, or by keys that are retired.
    """
    if not path or not successor:
        raise SignerRefused("a retirement names the keys and those that replace them")
    require_key_name(path)
    require_key_name(successor)
    if successor_of(retired, path) is not None:
        raise SignerRefused(f"{path} is retired already")
    if is_below(successor, path) or is_below(path, successor):
        raise SignerRefused(f"{path} cannot be replaced by {successor}: they share keys")
    if any(is_below(successor, old) or is_below(old, successor) for old in retired):
        raise SignerRefused(f"{successor} is retired itself")


def successor_of(retired: Mapping[str, str], path: str) -> str | None:
    """Return what replaces the key at *path*; None: it is not retired."""
    for old, successor in retired.items():
        if is_below(path, old):
            return successor
    return None


def is_below(path: str, account: str) -> bool:
    """Tell whether *path* is *account* or lies below it."""
    return f"{path}/".startswith(f"{account}/")
