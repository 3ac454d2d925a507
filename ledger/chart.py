"""The chart of accounts: which paths exist, on which side they stand, and which may be overdrawn.

Facts are never refused: nothing guards custody, venue, bank, transit or suspense accounts, because
what happened outside is posted and then explained. Flags guard decisions: a client's accounts, what
netting has made payable, and what we owe on a loan or in tax cannot be debited for more than was
credited.
``payable:<party>:open`` has no flag: it mirrors deals, whose amendments arrive in any order
and may pass through the other side; what leaves it goes through ``netted``, which is guarded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ledger.errors import NotInChart
from ledger.model import AccountSpec, Side

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    side: Side
    guarded: bool = False
    client_owned: bool = False


def _rule(pattern: str, side: Side, *, guarded: bool = False, client_owned: bool = False) -> _Rule:
    return _Rule(re.compile(pattern.replace("<name>", _NAME)), side, guarded, client_owned)


CHART: Final = (
    _rule(r"custody:<name>(?::<name>)?", Side.DEBIT),
    _rule(r"venue:<name>/<name>", Side.DEBIT),
    _rule(r"bank:<name>", Side.DEBIT),
    _rule(r"transit:out:<name>", Side.DEBIT),
    _rule(r"transit:[A-Za-z0-9][A-Za-z0-9._/-]{0,127}", Side.DEBIT),
    _rule(r"receivable:<name>:(?:open|netted|reorg|loan)", Side.DEBIT),
    _rule(r"collateral:given:<name>", Side.DEBIT),
    _rule(r"collateral:taken:<name>", Side.CREDIT),
    _rule(
        r"client:(?P<client><name>)(?::held|:unapplied)?",
        Side.CREDIT,
        guarded=True,
        client_owned=True,
    ),
    _rule(r"payable:<name>:(?:open|unapplied)", Side.CREDIT),
    _rule(r"payable:<name>:netted", Side.CREDIT, guarded=True),
    _rule(r"liability:(?:loan|tax):<name>", Side.CREDIT, guarded=True),
    _rule(r"in-flight:<name>", Side.CREDIT),
    _rule(r"suspense:(?:<name>|unattributed:<name>)", Side.CREDIT),
    _rule(r"clearing:<name>", Side.DEBIT),
    _rule(r"conversion:<name>", Side.CREDIT),
    _rule(r"income:(?:spread|fee|withdrawal-fee|interest|fx|staking|airdrop)", Side.CREDIT),
    _rule(r"expense:(?:network-fee|venue-fee|bank-charge|interest|loss|tax)", Side.DEBIT),
    _rule(r"house:rounding", Side.CREDIT),
    _rule(r"equity:(?:capital|opening)", Side.CREDIT),
)


def account_spec(path: str, asset: str, owner: str = "house") -> AccountSpec:
    """Return what the chart says about an account.

    Args:
        path: as in the chart: ``client:acme``.
        asset: asset code.
        owner: owner class of a holding: ``client`` (omnibus), ``client:<id>`` (segregated) or
            ``house``. A client's own account is owned by that client, whatever is given.

    Raises:
        NotInChart: no rule of the chart has such a path.
    """
    if not asset:
        raise NotInChart(f"the account {path!r} needs an asset")
    for rule in CHART:
        match = rule.pattern.fullmatch(path)
        if match is not None:
            return AccountSpec(
                path=path,
                asset=asset,
                side=rule.side,
                owner=f"client:{match['client']}" if rule.client_owned else owner,
                debits_must_not_exceed_credits=rule.guarded,
            )
    raise NotInChart(f"{path!r} is not in the chart of accounts", remedy="See docs/accounts.md")
