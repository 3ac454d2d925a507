"""The paths by which keys are named (BIP 32), each in one spelling. Pure.

Who may use a key is decided by its path as text, so a key must not have two: ``m/44'/60'/00'`` is
refused, though it would count as ``m/44'/60'/0'``.
"""

from __future__ import annotations

from typing import Final

from kernel.errors import BadInput

DEPTH_MAX: Final = 10
HARDENED: Final = 2**31
DIGITS_MAX: Final = 10


def parse_path(path: str) -> tuple[int, ...]:
    """Return the child numbers of a derivation path; ``'`` marks a hardened one."""
    head, _, rest = path.partition("/")
    steps = rest.split("/") if rest else []
    if head != "m" or len(steps) > DEPTH_MAX:
        raise BadInput(f"{path!r} is not a derivation path", remedy="Write it as m/44'/60'/0'")
    return tuple(_parse_step(step, path) for step in steps)


def require_key_name(path: str) -> None:
    """Refuse what names no keys: a derivation path in another spelling, or a label with edges.

    Raises:
        BadInput: it is neither a path nor a label of a token's key.
    """
    is_path = path.startswith("m/")
    if not path or path != path.strip() or (is_path and not parse_path(path)):
        raise BadInput(f"{path!r} is neither a derivation path nor a label")


def _parse_step(step: str, path: str) -> int:
    digits = step.removesuffix("'")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= DIGITS_MAX):
        raise BadInput(f"{path!r} is not a derivation path", where=step)
    number = int(digits)
    if number >= HARDENED or str(number) != digits:
        raise BadInput(f"{path!r} is not a derivation path", where=step)
    return number + (HARDENED if step.endswith("'") else 0)
