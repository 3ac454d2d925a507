"""Positions from a trial balance: assets less liabilities are what equity says."""

from __future__ import annotations

from ledger.chart import account_spec
from ledger.model import TrialBalanceRow
from reporting.positions import positions_of


def row(path: str, units: int, *, asset: str = "BTC", owner: str = "house") -> TrialBalanceRow:
    """An account with *units* on its normal side."""
    side = account_spec(path, asset, owner).side
    debits, credits_ = (units, 0) if side.value == "debit" else (0, units)
    return TrialBalanceRow(
        path=path,
        asset=asset,
        side=side,
        owner=owner,
        debits=debits,
        credits=credits_,
        debits_pending=0,
        credits_pending=0,
    )


BOOK = (
    row("custody:client-pool", 40, owner="client"),
    row("client:acme", 30, owner="client:acme"),
    row("client:birch:held", 5, owner="client:birch"),
    row("custody:house-hot", 100),
    row("venue:sim/desk", 20),
    row("bank:zkb", 7),
    row("transit:a-b", 3),
    row("receivable:acme:open", 11),
    row("payable:acme:netted", 6),
    row("in-flight:evm", 2),
    row("suspense:bank", 1),
    row("liability:loan:bank", 4),
    row("collateral:given:acme", 9),
    row("collateral:taken:birch", 8),
    row("conversion:otc", 60),
    row("income:fee", 44),
    row("expense:network-fee", 10),
    row("equity:capital", 40),
)


def test_every_account_counts_once_and_both_sides_agree() -> None:
    (found,) = positions_of(BOOK)

    assert (found.custody, found.for_clients, found.venues) == (100, 40, 20)
    assert (found.clients, found.receivable, found.payable) == (35, 11, 6)
    assert found.own == 40 + 100 + 20 + 7 + 3 + 11 + 9 - 35 - 6 - 8 - 2 - 1 - 4
    assert (found.own, found.equity, found.desks, found.is_tied) == (134, 134, 60, True)
    assert (found.unsettled, found.settled) == (5, 129)


def test_a_balance_that_nothing_explains_is_not_tied() -> None:
    (found,) = positions_of((*BOOK, row("custody:house-hot", 1)))

    assert not found.is_tied


def test_clients_off_balance_leave_only_what_exceeds_the_other_side() -> None:
    (covered,) = positions_of(BOOK, with_clients=False)
    (short,) = positions_of((*BOOK, row("client:cedar", 9)), with_clients=False)

    assert (covered.for_clients, covered.clients) == (5, 0)
    assert (short.for_clients, short.clients) == (0, 4)
    assert covered.own == 134


def test_an_asset_without_any_balance_is_left_out() -> None:
    assert positions_of([row("custody:house-hot", 0)]) == ()
