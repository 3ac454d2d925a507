"""The templates of manual journals: typed fields in, the legs of one chain out. Pure.

Every template is a frozen dataclass that checks its own fields; `legs` says which accounts it moves,
and `journal_chain` makes the transfers. A *holding* is where house money is: a bank, custody or venue
account. Amounts are smallest units, above zero.

========== =============================================================================
template   legs
========== =============================================================================
capital    paid in: Dr holding / Cr equity:capital; paid out: the opposite
loan       drawn: Dr holding / Cr liability:loan:<party>; repaid: Dr liability:loan:<party> / Cr
           holding, and the interest Dr expense:interest / Cr holding.
           granted: Dr receivable:<party>:loan / Cr holding; collected: Dr holding / Cr
           receivable:<party>:loan, and the interest Dr holding / Cr income:interest
write-off  Dr expense:loss / Cr a receivable or a venue account
tax        accrued: Dr expense:tax / Cr liability:tax:<authority>; paid: Dr liability:tax:<authority>
           / Cr holding; paid at once: Dr expense:tax / Cr holding
staking    Dr holding, or the suspense account where it arrived / Cr income:staking
airdrop    the same / Cr income:airdrop
bank-fee   Dr expense:bank-charge / Cr bank:<account>
========== =============================================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, date, datetime, time
from enum import StrEnum
from typing import Any, Final, TypeAlias
from uuid import UUID

from kernel.errors import BadInput
from kernel.ids import derive_id
from kernel.money import AMOUNT_MAX
from ledger.chart import account_spec
from ledger.errors import NotInChart
from ledger.model import Transfer, chain, transfer

HOLDINGS: Final = ("bank:", "custody:", "venue:")
ARRIVALS: Final = (*HOLDINGS, "suspense:")
WRITTEN_OFF: Final = ("receivable:", "venue:")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Leg:
    """One movement of a template: *name* is the last part of the transfer's code."""

    name: str
    debit: str
    credit: str
    amount: int


class CapitalAction(StrEnum):
    """Which way capital goes."""

    PAID_IN = "paid-in"
    PAID_OUT = "paid-out"


class LoanAction(StrEnum):
    """What happens to a loan; we are the debtor of the first two, the creditor of the others."""

    DRAWN = "drawn"
    REPAID = "repaid"
    GRANTED = "granted"
    COLLECTED = "collected"


class TaxAction(StrEnum):
    """What happens to a tax."""

    ACCRUED = "accrued"
    PAID = "paid"
    PAID_AT_ONCE = "paid-at-once"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capital:
    """The owners pay capital in, or get it back."""

    action: CapitalAction
    holding: str
    asset: str
    amount: int

    def __post_init__(self) -> None:
        _require_amount("amount", self.amount)
        _require_account("holding", self.holding, self.asset, HOLDINGS)

    def legs(self) -> tuple[Leg, ...]:
        """Return what is moved."""
        match self.action:
            case CapitalAction.PAID_IN:
                return (Leg("paid-in", self.holding, "equity:capital", self.amount),)
            case CapitalAction.PAID_OUT:
                return (Leg("paid-out", "equity:capital", self.holding, self.amount),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loan:
    """A loan is drawn, repaid, granted or collected; *interest* only with the second and last."""

    action: LoanAction
    party: str
    holding: str
    asset: str
    principal: int
    interest: int = 0

    def __post_init__(self) -> None:
        _require_name("party", self.party)
        _require_account("holding", self.holding, self.asset, HOLDINGS)
        for name in ("principal", "interest"):
            value = getattr(self, name)
            if not 0 <= value <= AMOUNT_MAX:
                raise BadInput(f"the {name} of a loan is 0 or more, not {value}")
        pays = self.action in {LoanAction.REPAID, LoanAction.COLLECTED}
        if self.interest and not pays:
            raise BadInput(f"a loan that is {self.action} bears no interest yet")
        if not self.principal and not (pays and self.interest):
            raise BadInput("the principal of a loan is above zero")

    def legs(self) -> tuple[Leg, ...]:
        """Return what is moved; a part of zero is left out."""
        return tuple(leg for leg in self._legs() if leg.amount)

    def _legs(self) -> tuple[Leg, ...]:
        owed, due = f"liability:loan:{self.party}", f"receivable:{self.party}:loan"
        match self.action:
            case LoanAction.DRAWN:
                return (Leg("drawn", self.holding, owed, self.principal),)
            case LoanAction.REPAID:
                return (
                    Leg("repaid", owed, self.holding, self.principal),
                    Leg("interest", "expense:interest", self.holding, self.interest),
                )
            case LoanAction.GRANTED:
                return (Leg("granted", due, self.holding, self.principal),)
            case LoanAction.COLLECTED:
                return (
                    Leg("collected", self.holding, due, self.principal),
                    Leg("interest", self.holding, "income:interest", self.interest),
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOff:
    """What a party or a venue will not pay any more is lost; never more than is owed."""

    account: str
    asset: str
    amount: int

    def __post_init__(self) -> None:
        _require_amount("amount", self.amount)
        _require_account("account", self.account, self.asset, WRITTEN_OFF)

    def legs(self) -> tuple[Leg, ...]:
        """Return what is moved."""
        return (Leg("loss", "expense:loss", self.account, self.amount),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tax:
    """A tax is accrued, paid, or both at once; *holding* is empty where it is only accrued."""

    action: TaxAction
    authority: str
    asset: str
    amount: int
    holding: str = ""

    def __post_init__(self) -> None:
        _require_amount("amount", self.amount)
        _require_name("authority", self.authority)
        if self.action is TaxAction.ACCRUED:
            if self.holding:
                raise BadInput("an accrued tax leaves no holding", remedy="Leave the holding out")
        else:
            _require_account("holding", self.holding, self.asset, HOLDINGS)

    def legs(self) -> tuple[Leg, ...]:
        """Return what is moved."""
        owed = f"liability:tax:{self.authority}"
        match self.action:
            case TaxAction.ACCRUED:
                return (Leg("accrued", "expense:tax", owed, self.amount),)
            case TaxAction.PAID:
                return (Leg("paid", owed, self.holding, self.amount),)
            case TaxAction.PAID_AT_ONCE:
                return (Leg("paid", "expense:tax", self.holding, self.amount),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Staking:
    """A staking reward: *received_on* is a holding, or the suspense account it was booked on."""

    received_on: str
    asset: str
    amount: int

    def __post_init__(self) -> None:
        _require_amount("amount", self.amount)
        _require_account("received_on", self.received_on, self.asset, ARRIVALS)

    def legs(self) -> tuple[Leg, ...]:
        """Return what is moved."""
        return (Leg("reward", self.received_on, "income:staking", self.amount),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Airdrop:
    """Coins that nobody paid for: *received_on* as of a staking reward."""

    received_on: str
    asset: str
    amount: int

    def __post_init__(self) -> None:
        _require_amount("amount", self.amount)
        _require_account("received_on", self.received_on, self.asset, ARRIVALS)

    def legs(self) -> tuple[Leg, ...]:
        """Return what is moved."""
        return (Leg("received", self.received_on, "income:airdrop", self.amount),)


@dataclass(frozen=True, slots=True, kw_only=True)
class BankFee:
    """What a bank takes for itself."""

    account: str
    asset: str
    amount: int

    def __post_init__(self) -> None:
        _require_amount("amount", self.amount)
        _require_account("account", self.account, self.asset, ("bank:",))

    def legs(self) -> tuple[Leg, ...]:
        """Return what is moved."""
        return (Leg("charge", "expense:bank-charge", self.account, self.amount),)


Template: TypeAlias = Capital | Loan | WriteOff | Tax | Staking | Airdrop | BankFee

TEMPLATES: Final[Mapping[str, type[Template]]] = {
    "capital": Capital,
    "loan": Loan,
    "write-off": WriteOff,
    "tax": Tax,
    "staking": Staking,
    "airdrop": Airdrop,
    "bank-fee": BankFee,
}
"""The templates by the name that the command line, the rows and the codes of transfers have."""

AMOUNT_FIELDS: Final = frozenset({"amount", "principal", "interest"})
"""Fields that are amounts of the template's asset."""

ACTIONS: Final[Mapping[str, type[StrEnum]]] = {
    "capital": CapitalAction,
    "loan": LoanAction,
    "tax": TaxAction,
}


def template_name(template: Template) -> str:
    """Return the name of a template: ``write-off``."""
    return next(name for name, kind in TEMPLATES.items() if kind is type(template))


def house_holdings(template: Template) -> tuple[str, ...]:
    """Return the holdings that a template moves, each of which has to belong to the house."""
    return tuple(
        sorted(
            {
                path
                for leg in template.legs()
                for path in (leg.debit, leg.credit)
                if path.startswith(HOLDINGS)
            }
        )
    )


def unguarded_source(template: Template) -> str | None:
    """Return the receivable, venue or suspense account that a template takes from; else None."""
    match template:
        case WriteOff():
            return template.account
        case Staking() | Airdrop() if template.received_on.startswith("suspense:"):
            return template.received_on
        case _:
            return None


def journal_chain(
    template: Template,
    *,
    journal: UUID,
    created_at: datetime,
    effective_on: date,
    attachment: str,
) -> tuple[Transfer, ...]:
    """Return the transfers of a manual journal, linked; the same arguments always give the same.

    Args:
        template: what happened.
        journal: id of the manual journal, the only thing the ledger is told about the words of it.
        created_at: when it was proposed; the ids of the transfers follow from it.
        effective_on: the day from whose beginning, in UTC, it counts.
        attachment: SHA-256 of the document behind it.
    """
    name = template_name(template)
    effective_at = datetime.combine(effective_on, time(0), UTC)
    return chain(
        *(
            transfer(
                derive_id(created_at, "manual-journal", journal, number),
                leg.debit,
                leg.credit,
                leg.amount,
                template.asset,
                code=f"manual.{name}.{leg.name}",
                correlation=journal,
                effective_at=effective_at,
                metadata={"manual_journal": str(journal), "attachment": attachment},
            )
            for number, leg in enumerate(template.legs())
        )
    )


def to_content(template: Template) -> dict[str, str]:
    """Return the fields as text: what is stored and signed."""
    return {field.name: str(getattr(template, field.name)) for field in fields(template)}


def from_content(name: str, content: Mapping[str, str]) -> Template:
    """Return the template that `to_content` wrote, or that somebody typed.

    Raises:
        BadInput: no such template, a field missing, unknown or impossible.
    """
    kind = TEMPLATES.get(name)
    if kind is None:
        raise BadInput(f"there is no template {name!r}", remedy=f"Use {', '.join(TEMPLATES)}")
    known = {field.name for field in fields(kind)}
    unknown = sorted(content.keys() - known)
    if unknown:
        raise BadInput(f"the template {name} has no field {', '.join(unknown)}")
    values: dict[str, Any] = {
        key: _parse(name, key, value) for key, value in content.items() if value != ""
    }
    missing = [f.name for f in fields(kind) if f.default is MISSING and f.name not in values]
    if missing:
        raise BadInput(f"the template {name} needs {', '.join(missing)}")
    return kind(**values)


def _parse(name: str, key: str, value: str) -> object:
    if key in AMOUNT_FIELDS:
        if not (value.isascii() and value.isdigit()):
            raise BadInput(f"the {key} of {name} is a number of smallest units, not {value!r}")
        return int(value)
    if key == "action":
        actions = ACTIONS[name]
        if value not in {str(action) for action in actions}:
            raise BadInput(
                f"{value!r} is no action of the template {name}",
                remedy=f"Use {', '.join(actions)}",
            )
        return actions(value)
    return value


def _require_amount(name: str, amount: int) -> None:
    if not 0 < amount <= AMOUNT_MAX:
        raise BadInput(f"the {name} of a manual journal is above zero, not {amount}")


def _require_name(field: str, name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise BadInput(f"{name!r} is not a name for the {field}", remedy="Use an opaque code")


def _require_account(field: str, path: str, asset: str, prefixes: tuple[str, ...]) -> None:
    try:
        account_spec(path, asset)
    except NotInChart as error:
        raise BadInput(f"the {field} {path!r} is not in the chart of accounts") from error
    if not path.startswith(prefixes):
        raise BadInput(
            f"the {field} {path} does not fit the template",
            remedy=f"It begins with {' or '.join(prefixes)}",
        )
