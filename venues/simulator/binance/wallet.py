"""The wallet endpoints: coins, deposits, withdrawals, what a key may do.

Source: Binance's wallet API documentation ("Capital", "Account").
"""

import re
from typing import Any, Final

from venues.simulator import funding
from venues.simulator.binance import parameters, wire
from venues.simulator.binance.calls import PAGE_MAX, Call
from venues.simulator.binance.refusals import ApiError, spelled
from venues.simulator.commands import RequestWithdrawal
from venues.simulator.decimals import text_from_units, units_from_text
from venues.simulator.errors import VenueRefusal
from venues.simulator.model import FeeRates, Withdrawal, WithdrawalStatus
from venues.simulator.state import network_of

CLIENT_ID_MAX: Final = 64

_ADDRESS: Final = re.compile(r"[A-Za-z0-9:._-]{1,128}")


def restrictions(call: Call) -> Any:
    """GET /sapi/v1/account/apiRestrictions: what the key it is signed with may do."""
    allowed = call.key.permissions
    return {
        "ipRestrict": call.key.ip_restricted,
        "createTime": call.core.state.genesis.at_ms,
        "enableReading": "read" in allowed,
        "enableWithdrawals": "withdraw" in allowed,
        "enableInternalTransfer": False,
        "enableMargin": False,
        "enableFutures": False,
        "permitsUniversalTransfer": False,
        "enableVanillaOptions": False,
        "enableFixApiTrade": False,
        "enableFixReadOnly": False,
        "enableSpotAndMarginTrading": "trade" in allowed,
        "enablePortfolioMarginTrading": False,
    }


def coins(call: Call) -> Any:
    """GET /sapi/v1/capital/config/getall."""
    withdrawing: dict[str, int] = {}
    for row in _withdrawals(call):
        if row.status is WithdrawalStatus.PROCESSING:
            units = row.amount_units + row.fee_units
            withdrawing[row.asset] = withdrawing.get(row.asset, 0) + units
    return [
        wire.coin_info(asset, call.account, withdrawing.get(asset.name, 0))
        for asset in call.core.state.assets.values()
    ]


def trade_fees(call: Call) -> Any:
    """GET /sapi/v1/asset/tradeFee, of all symbols or of one: rates as plain fractions."""
    markets = parameters.markets_of(call.core.state, call.sent)
    maker, taker = fee_texts(call.account.fees)
    return [
        {"symbol": market.spec.name, "makerCommission": maker, "takerCommission": taker}
        for market in markets
    ]


def fee_texts(fees: FeeRates) -> tuple[str, str]:
    """Maker and taker rate as decimal fractions."""
    return text_from_units(fees.maker_ppm * 100), text_from_units(fees.taker_ppm * 100)


def withdraw(call: Call) -> Any:
    """POST /sapi/v1/capital/withdraw/apply."""
    sent = call.sent
    address = parameters.text(sent, "address")
    if _ADDRESS.fullmatch(address) is None:
        raise ApiError(-4033, "Illegal address.")
    client_id = sent.get("withdrawOrderId", "")
    if len(client_id) > CLIENT_ID_MAX:
        raise ApiError(-1105, "Parameter 'withdrawOrderId' is too long.")
    command = RequestWithdrawal(
        at_ms=call.core.accepted_at(),
        account=call.name,
        asset=parameters.text(sent, "coin"),
        network=sent.get("network", ""),
        address=address,
        tag_text=sent.get("addressTag", ""),
        amount_units=units_from_text("amount", parameters.text(sent, "amount")),
        client_id=client_id,
    )
    try:
        call.core.execute(command)
    except VenueRefusal as refusal:
        raise spelled(refusal, of_withdrawal=True) from refusal
    return {"id": next(reversed(call.account.withdrawals))}


def withdrawal_history(call: Call) -> Any:
    """GET /sapi/v1/capital/withdraw/history, newest first."""
    sent = call.sent
    rows = [wire.withdrawal_row(row) for row in reversed(_withdrawals(call)) if _asked(call, row)]
    return _page(
        call, [row for row in rows if sent.get("status", str(row["status"])) == str(row["status"])]
    )


def deposit_history(call: Call) -> Any:
    """GET /sapi/v1/capital/deposit/hisrec, newest first."""
    sent = call.sent
    rows = [
        wire.deposit_row(row)
        for row in reversed(call.account.deposits)
        if sent.get("coin", row.asset) == row.asset
        and sent.get("txId", row.tx_id) == row.tx_id
        and parameters.within(sent, row.at_ms)
    ]
    return _page(
        call, [row for row in rows if sent.get("status", str(row["status"])) == str(row["status"])]
    )


def deposit_address(call: Call) -> Any:
    """GET /sapi/v1/capital/deposit/address."""
    state, coin = call.core.state, parameters.text(call.sent, "coin")
    asset = state.assets.get(coin)
    network = None if asset is None else network_of(asset, call.sent.get("network", ""))
    if network is None:
        raise ApiError(-4018, "We don't have this asset.")
    address = funding.deposit_address(state, call.name, coin, network)
    return {"coin": coin, "address": address, "tag": "", "url": ""}


def _asked(call: Call, row: Withdrawal) -> bool:
    sent = call.sent
    return (
        sent.get("coin", row.asset) == row.asset
        and sent.get("withdrawOrderId", row.client_id) == row.client_id
        and parameters.within(sent, row.at_ms)
    )


def _withdrawals(call: Call) -> list[Withdrawal]:
    state, now_ms = call.core.state, call.core.now_ms()
    rows = call.core.state.withdrawals_of(call.name)
    return [funding.withdrawal_as_of(state, row, now_ms) for row in rows]


def _page(call: Call, rows: list[Any]) -> list[Any]:
    offset = parameters.optional_integer(call.sent, "offset", 0)
    return rows[offset : offset + call.limit(PAGE_MAX, PAGE_MAX)]
