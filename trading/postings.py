"""The ledger chains of deals and hedge fills, by the rules of the account book. Pure.

A deal books both sides against ``conversion:<desk>``; a fill moves the same accounts the other way.
So the sum of ``conversion:<desk>`` per asset is the position, fees in kind included.
"""

from __future__ import annotations

from collections.abc import Iterable

from kernel.errors import BadInput
from kernel.ids import derive_id
from ledger.chart import account_spec
from ledger.errors import NotInChart
from ledger.model import Transfer, chain, reversal, transfer
from matching.model import Side
from trading.model import (
    Deal,
    DealPurpose,
    DealRequest,
    DealSide,
    Direction,
    LegKind,
    SettlementLeg,
)
from venues.model import EPOCH, VenueFill

DEAL_BOOKED = "deal.booked"
DEAL_FEE = "deal.fee"
DEAL_REVERSED = "deal.reversed"
FILL = "hedge.fill"
FILL_FEE = "hedge.fee"


def conversion(desk: str) -> str:
    """Return the account that holds a desk's position."""
    return f"conversion:{desk}"


def require_desk(desk: str) -> None:
    """Refuse a desk whose position no account can hold.

    Raises:
        BadInput: its name is none that the chart of accounts allows.
    """
    try:
        account_spec(conversion(desk), "any")
    except NotInChart:
        raise BadInput(
            f"{desk!r} is no name of a desk",
            remedy="Use up to 64 letters, digits, dots, dashes and underscores",
        ) from None


def venue_account(venue: str, account: str) -> str:
    """Return the account of what a venue owes us."""
    return f"venue:{venue}/{account}"


def deal_chain(deal: Deal) -> tuple[Transfer, ...]:
    """Return the chain that books *deal*.

    The desk sells: Dr receivable quote / Cr conversion; Dr conversion base / Cr payable. It buys:
    Dr receivable base / Cr conversion; Dr conversion quote / Cr payable. Fee: Dr receivable quote /
    Cr income:fee. In a transfer ``conversion:treasury`` stands for both accounts of the party: what
    one side is longer, the other is shorter, and nobody owes anything.
    """
    asked = deal.request
    receivable, payable = _accounts_of_other_side(asked)
    desk = conversion(asked.desk)
    moves = [
        (receivable, desk, deal.receives, DEAL_BOOKED),
        (desk, payable, deal.pays, DEAL_BOOKED),
    ]
    if deal.fee is not None:
        moves.append((receivable, "income:fee", deal.fee, DEAL_FEE))
    last = len(moves)
    return tuple(
        _deal_line(deal, number, *move, linked=number < last)
        for number, move in enumerate(moves, 1)
    )


def reversal_chain(deal: Deal) -> tuple[Transfer, ...]:
    """Return the chain that takes the booking of *deal* back in full."""
    return chain(
        *(
            reversal(
                derive_id(deal.created_at, DEAL_REVERSED, item.id),
                item.id,
                code=DEAL_REVERSED,
                reference=deal.request.client_ref,
                correlation=deal.id,
            )
            for item in deal_chain(deal)
        )
    )


def deal_legs(deal: Deal) -> tuple[SettlementLeg, ...]:
    """Return what *deal* makes the two sides owe; the fee is a leg of its own; a transfer has none."""
    asked = deal.request
    if asked.purpose is DealPurpose.TRANSFER:
        return ()
    receivable, payable = _accounts_of_other_side(asked)
    sells = asked.side is DealSide.DESK_SELLS
    parts = [
        (LegKind.BASE, asked.base.code, asked.base_units, sells),
        (LegKind.QUOTE, asked.quote.code, deal.quote_units, not sells),
    ]
    if asked.fee_units:
        parts.append((LegKind.FEE, asked.quote.code, asked.fee_units, False))
    return tuple(
        SettlementLeg(
            deal_id=deal.id,
            client_ref=asked.client_ref,
            kind=kind,
            party=asked.party,
            asset=asset,
            amount=amount,
            direction=Direction.OWED_BY_US if by_us else Direction.OWED_TO_US,
            trade_date=deal.agreed_at.date(),
            value_date=deal.value_date,
            account=payable if by_us else receivable,
            booked_at=deal.created_at,
        )
        for kind, asset, amount, by_us in parts
    )


def fill_chain(fill: VenueFill, desk: str, fee_value: int | None) -> tuple[Transfer, ...]:
    """Return the chain that posts *fill* for *desk*.

    A buy: Dr venue base / Cr conversion; Dr conversion quote / Cr venue. A sale mirrors it. The fee:
    in the quote asset Dr expense:venue-fee / Cr venue; in any other asset Dr conversion / Cr venue
    in kind, and its value Dr expense:venue-fee / Cr conversion in the quote asset. A rebate (a
    negative fee) goes the other way round.

    Args:
        fill: the fill.
        desk: whose position it changes.
        fee_value: the fee's value at the fill in smallest units of the quote asset; None: unknown
            (a third asset without a price): then the fee is an expense in kind.
    """
    holding, position = venue_account(fill.venue, fill.account), conversion(desk)
    base, quote = (fill.base, fill.base_units), (fill.quote, fill.quote_units)
    bought, paid = (base, quote) if fill.side is Side.BUY else (quote, base)
    lines = [
        _fill_line(fill, "in", holding, position, bought, FILL),
        _fill_line(fill, "out", position, holding, paid, FILL),
        *_fee_lines(fill, holding, position, fee_value),
    ]
    return chain(*(line for line in lines if line.amount))


def account_keys(transfers: Iterable[Transfer]) -> set[tuple[str, str]]:
    """Return the (path, asset) pairs that *transfers* touch."""
    return {(path, item.asset) for item in transfers for path in (item.debit, item.credit) if path}


def opening_chain(
    venue: str, account: str, holdings: Iterable[tuple[str, int]]
) -> tuple[Transfer, ...]:
    """Return the chain that opens a venue account with what it holds; possible once."""
    return chain(
        *(
            transfer(
                derive_id(EPOCH, "venue.opening", venue, account, asset),
                venue_account(venue, account),
                "equity:opening",
                units,
                asset,
                code="venue.opening",
                reference=f"{venue}/{account}",
            )
            for asset, units in holdings
            if units
        )
    )


def _accounts_of_other_side(asked: DealRequest) -> tuple[str, str]:
    """Return where it stands what the other side owes us, and what we owe it."""
    if asked.purpose is DealPurpose.TRANSFER:
        return conversion(asked.party), conversion(asked.party)
    return f"receivable:{asked.party}:open", f"payable:{asked.party}:open"


def _deal_line(
    deal: Deal,
    number: int,
    debit: str,
    credit: str,
    amount: tuple[str, int],
    code: str,
    *,
    linked: bool,
) -> Transfer:
    asset, units = amount
    return transfer(
        derive_id(deal.created_at, DEAL_BOOKED, deal.id, number),
        debit,
        credit,
        units,
        asset,
        code=code,
        reference=deal.request.client_ref,
        correlation=deal.id,
        linked=linked,
    )


def _fee_lines(
    fill: VenueFill, holding: str, position: str, fee_value: int | None
) -> list[Transfer]:
    fee = (fill.fee_asset, fill.fee_units)
    expense = "expense:venue-fee"
    if fill.fee_asset == fill.quote or fee_value is None:
        return [_fill_line(fill, "fee", expense, holding, fee, FILL_FEE)]
    value = (fill.quote, fee_value)
    return [
        _fill_line(fill, "fee", position, holding, fee, FILL_FEE),
        _fill_line(fill, "fee-value", expense, position, value, FILL_FEE),
    ]


def _fill_line(
    fill: VenueFill, part: str, debit: str, credit: str, amount: tuple[str, int], code: str
) -> Transfer:
    asset, units = amount
    if units < 0:
        debit, credit, units = credit, debit, -units
    return transfer(
        derive_id(fill.executed_at, FILL, fill.id, part),
        debit,
        credit,
        units,
        asset,
        code=code,
        reference=f"{fill.venue}/{fill.account}/{fill.symbol}/{fill.trade_id}",
        correlation=fill.id,
    )
