"""What the house file says of its accounts at banks: ``[[bank]]``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from app.workers.sections import require_number, require_text, several, values_of

BANKS: Final = "bank"
GATHER_SECONDS_MAX: Final = 24 * 3_600
_DEFAULTS: Final[dict[str, Any]] = {"orders": "", "inbox": "", "gather_seconds": 0}
_SCHEMES: Final = ("http://", "https://")


@dataclass(frozen=True, slots=True, kw_only=True)
class BankSection:
    """One account of ours, and how files go to its bank and come from it.

    Attributes:
        account: its code, as registered.
        url: where payment files are handed over; None: *orders* is a folder, or nothing is paid.
        orders: the folder from which somebody else takes them to the bank.
        inbox: the folder in which the bank's files land; None: nobody brings any.
        gather: a payment file waits until the oldest of its payouts is so old.
    """

    account: str
    url: str | None = None
    orders: Path | None = None
    inbox: Path | None = None
    gather: timedelta = timedelta(0)


def parse_banks(tables: object, path: Path) -> tuple[BankSection, ...]:
    """Check the ``[[bank]]`` tables that were read from *path*.

    Raises:
        BadInput: names the key that is missing, unknown or of another kind.
    """
    return several(
        tables,
        lambda table: _parse(table, path),
        lambda section: section.account,
        path,
        missing=f"write [[{BANKS}]] for each account",
        twice=f"two [[{BANKS}]] are of one account",
    )


def _parse(table: object, path: Path) -> BankSection:
    where = f"{path}: [[{BANKS}]]"
    values = values_of(table, _DEFAULTS, frozenset({"account"}), where)
    for key in ("account", "orders", "inbox"):
        require_text(key, values[key], where, is_required=key == "account")
    require_number("gather_seconds", values["gather_seconds"], (0, GATHER_SECONDS_MAX), where)
    folder = path.absolute().parent
    orders = str(values["orders"])
    is_url = orders.startswith(_SCHEMES)
    return BankSection(
        account=values["account"],
        url=orders if is_url else None,
        orders=folder / orders if orders and not is_url else None,
        inbox=folder / values["inbox"] if values["inbox"] else None,
        gather=timedelta(seconds=values["gather_seconds"]),
    )
