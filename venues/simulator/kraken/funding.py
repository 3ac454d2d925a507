"""Private REST endpoints that move funds in and out.

Withdrawals go only to addresses saved under a name (`key`) beforehand. The amount asked for is what
leaves the account; the network's fee is kept from it. Source: docs.kraken.com, Funding.
"""

from collections.abc import Iterable
from typing import Any, Final

from venues.simulator import funding as core_funding
from venues.simulator.commands import CancelWithdrawal, RequestWithdrawal
from venues.simulator.decimals import UNIT
from venues.simulator.kraken import errors, numbers, order_rows
from venues.simulator.kraken.context import Call
from venues.simulator.kraken.errors import KrakenRefusal, invalid, translated
from venues.simulator.kraken.market_data import asset_decimals
from venues.simulator.kraken.names import altname, asset_id
from venues.simulator.model import (
    AssetSpec,
    Deposit,
    LedgerKind,
    NetworkSpec,
    SavedAddress,
    Withdrawal,
    WithdrawalStatus,
)

UNKNOWN_ASSET: Final = "EFunding:Unknown asset"
UNKNOWN_REFERENCE: Final = "EFunding:Unknown reference id"
PAGE_DEFAULT: Final = 500
PAGE_MAX: Final = 500

_METHODS: Final = {
    ("BTC", "BTC"): "Bitcoin",
    ("ETH", "ETH"): "Ether (Hex)",
    ("USDT", "ETH"): "Tether USD (ERC20)",
    ("USDC", "ETH"): "USDC",
}
_NETWORKS: Final = {"BTC": "Bitcoin", "ETH": "Ethereum"}
_STATUSES: Final = {
    WithdrawalStatus.PROCESSING: "Pending",
    WithdrawalStatus.COMPLETED: "Success",
    WithdrawalStatus.REJECTED: "Failure",
    WithdrawalStatus.FAILED: "Failure",
    WithdrawalStatus.CANCELLED: "Failure",
}


def method_name(asset: str, network: str) -> str:
    """The funding method of an asset on a network."""
    return _METHODS.get((asset, network), f"{asset} ({network})")


def network_name(network: str) -> str:
    """The network as it is told to clients."""
    return _NETWORKS.get(network, network)


def deposit_methods(call: Call) -> Any:
    """POST /0/private/DepositMethods."""
    spec = _asset(call)
    return [
        {
            "method": method_name(spec.name, network.name),
            "limit": False,
            "fee": _amount(spec.name, 0),
            "gen-address": True,
            "minimum": _amount(spec.name, 1),
            "network": network_name(network.name),
        }
        for network in spec.networks
    ]


def deposit_addresses(call: Call) -> Any:
    """POST /0/private/DepositAddresses: the account's one address of a method."""
    spec = _asset(call)
    network = _network(spec, call.text("method"))
    address = core_funding.deposit_address(call.core.state, call.name, spec.name, network)
    return [{"address": address, "expiretm": "0", "new": call.flag("new")}]


def deposit_status(call: Call) -> Any:
    """POST /0/private/DepositStatus, newest first."""
    wanted = _asset(call).name if call.has("asset") else None
    rows = [
        deposit
        for deposit in call.account.deposits
        if wanted in (None, deposit.asset) and _is_between(call, deposit.at_ms)
    ]
    method = call.optional_text("method")
    found = [_deposit_row(row) for row in reversed(rows)]
    return _limited(call, [row for row in found if method in ("", row["method"])])


def withdraw_methods(call: Call) -> Any:
    """POST /0/private/WithdrawMethods."""
    state = call.core.state
    specs: Iterable[AssetSpec] = [_asset(call)] if call.has("asset") else state.assets.values()
    return [
        {
            "asset": altname(spec.name),
            "method": method_name(spec.name, network.name),
            "network": network_name(network.name),
            "minimum": _amount(spec.name, network.withdraw_min_units),
            "fee": {
                "asset": altname(spec.name),
                "aclass": "currency",
                "fee": _amount(spec.name, network.withdraw_fee_units),
            },
        }
        for spec in specs
        for network in spec.networks
    ]


def withdraw_addresses(call: Call) -> Any:
    """POST /0/private/WithdrawAddresses."""
    wanted = _asset(call).name if call.has("asset") else None
    key, method = call.optional_text("key"), call.optional_text("method")
    rows = [
        _address_row(saved)
        for saved in call.account.saved_addresses.values()
        if wanted in (None, saved.asset) and key in ("", saved.name)
    ]
    return [row for row in rows if method in ("", row["method"])]


def withdraw_info(call: Call) -> Any:
    """POST /0/private/WithdrawInfo: what a withdrawal would cost."""
    spec, saved = _asset(call), _saved(call)
    units = _units(call)
    network = _network_of(spec, saved.network)
    return {
        "method": method_name(spec.name, network.name),
        "limit": _amount(spec.name, call.account.wallet.free(spec.name)),
        "amount": _amount(spec.name, max(0, units - network.withdraw_fee_units)),
        "fee": _amount(spec.name, network.withdraw_fee_units),
    }


def withdraw(call: Call) -> Any:
    """POST /0/private/Withdraw: to the address saved under `key`; another `address` is refused."""
    spec, saved = _asset(call), _saved(call)
    if call.has("address") and call.text("address") != saved.address:
        raise KrakenRefusal("EFunding:Invalid address")
    network = _network_of(spec, saved.network)
    if call.has("max_fee"):
        fee_max = numbers.units_of(call.text("max_fee"))
        if fee_max is None or fee_max < network.withdraw_fee_units:
            raise KrakenRefusal("EFunding:Max fee exceeded")
    command = RequestWithdrawal(
        at_ms=call.core.accepted_at(),
        account=call.name,
        asset=spec.name,
        network=network.name,
        address=saved.address,
        tag_text=saved.tag,
        amount_units=_units(call),
        client_id=saved.name,
    )
    translated(lambda: call.core.execute(command), of_funds=True)
    return {"refid": withdrawal_reference(next(reversed(call.account.withdrawals)))}


def withdraw_status(call: Call) -> Any:
    """POST /0/private/WithdrawStatus, newest first."""
    wanted = _asset(call).name if call.has("asset") else None
    rows = [
        row
        for row in _withdrawals(call)
        if wanted in (None, row.asset) and _is_between(call, row.at_ms)
    ]
    method = call.optional_text("method")
    found = [_withdrawal_row(row) for row in reversed(rows)]
    return _limited(call, [row for row in found if method in ("", row["method"])])


def withdraw_cancel(call: Call) -> Any:
    """POST /0/private/WithdrawCancel: while the withdrawal is pending."""
    spec, reference = _asset(call), call.text("refid")
    named = [
        row.id
        for row in _withdrawals(call)
        if withdrawal_reference(row.id) == reference and row.asset == spec.name
    ]
    if not named:
        raise KrakenRefusal(UNKNOWN_REFERENCE)
    cancelling = CancelWithdrawal(call.core.accepted_at(), call.name, named[0])
    translated(lambda: call.core.execute(cancelling), of_funds=True)
    return True


def withdrawal_reference(core_id: str) -> str:
    """A withdrawal's `refid`."""
    return order_rows.funds_reference(LedgerKind.WITHDRAWAL, core_id)


def _asset(call: Call) -> AssetSpec:
    return call.core.state.assets[call.asset(UNKNOWN_ASSET)]


def _network(spec: AssetSpec, method: str) -> NetworkSpec:
    for network in spec.networks:
        if method_name(spec.name, network.name) == method:
            return network
    raise KrakenRefusal(errors.NO_FUNDING_METHOD)


def _network_of(spec: AssetSpec, name: str) -> NetworkSpec:
    for network in spec.networks:
        if network.name == name:
            return network
    raise KrakenRefusal(errors.NO_FUNDING_METHOD)


def _saved(call: Call) -> SavedAddress:
    saved = call.account.saved_addresses.get(call.text("key"))
    if saved is None or saved.asset != _asset(call).name:
        raise KrakenRefusal(errors.UNKNOWN_WITHDRAW_KEY)
    return saved


def _units(call: Call) -> int:
    units = numbers.units_of(call.text("amount"))
    if units is None or units <= 0:
        raise KrakenRefusal("EFunding:Invalid amount")
    return units


def _withdrawals(call: Call) -> list[Withdrawal]:
    state, now_ms = call.core.state, call.core.now_ms()
    rows = call.core.state.withdrawals_of(call.name)
    return [core_funding.withdrawal_as_of(state, row, now_ms) for row in rows]


def _withdrawal_row(row: Withdrawal) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "method": method_name(row.asset, row.network),
        "network": network_name(row.network),
        "aclass": "currency",
        "asset": asset_id(row.asset),
        "refid": withdrawal_reference(row.id),
        "txid": row.tx_id or None,
        "info": row.address,
        "amount": _amount(row.asset, row.amount_units),
        "fee": _amount(row.asset, row.fee_units),
        "time": row.at_ms // 1000,
        "status": _STATUSES[row.status],
        "key": row.client_id,
    }
    if row.status is WithdrawalStatus.CANCELLED:
        shown["status-prop"] = "canceled"
    return shown


def _deposit_row(row: Deposit) -> dict[str, Any]:
    return {
        "method": method_name(row.asset, row.network),
        "network": network_name(row.network),
        "aclass": "currency",
        "asset": asset_id(row.asset),
        "refid": order_rows.funds_reference(LedgerKind.DEPOSIT, row.id),
        "txid": row.tx_id,
        "info": row.address,
        "amount": _amount(row.asset, row.amount_units),
        "fee": _amount(row.asset, 0),
        "time": row.at_ms // 1000,
        "status": "Pending" if row.is_pending else "Success",
    }


def _address_row(saved: SavedAddress) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "address": saved.address,
        "asset": altname(saved.asset),
        "method": method_name(saved.asset, saved.network),
        "key": saved.name,
        "verified": True,
    }
    if saved.tag:
        shown["tag"] = saved.tag
    return shown


def _is_between(call: Call, at_ms: int) -> bool:
    for name, is_inside in (("start", at_ms.__ge__), ("end", at_ms.__le__)):
        if call.has(name):
            units = numbers.units_of(call.text(name))
            if units is None:
                raise invalid(name)
            if not is_inside(units * 1000 // UNIT):
                return False
    return True


def _limited(call: Call, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    limit = call.integer("limit", PAGE_DEFAULT)
    if not 1 <= limit <= PAGE_MAX:
        raise invalid("limit")
    return rows[:limit]


def _amount(code: str, units: int) -> str:
    return numbers.scaled(units, asset_decimals(code))
