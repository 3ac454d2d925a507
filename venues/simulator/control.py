"""The control endpoint: what an operator or a test may do that no client may.

    GET    /control/state               the true state: every balance, order, fill, movement
    GET    /control/subscriptions       {user}: how many user data streams were ever subscribed to
    GET    /control/faults              faults not yet spent
    POST   /control/faults              schedule one: {kind, path, method, count, skip, seconds}
    DELETE /control/faults              forget all
    POST   /control/fund                {account, asset, amount}
    POST   /control/deposit             the same with {network, address, tx_id}: listed as a deposit
    POST   /control/balance             {account, asset, free}: overwrite, as no honest venue would
    POST   /control/fees                {account, maker_ppm, taker_ppm, asset}
    POST   /control/withdrawal          {id, status: COMPLETED|REJECTED|FAILED, tx_id}
    POST   /control/deposit-address     {account, asset, network, address}
    POST   /control/maker               {paused}
    POST   /control/step                {count}: let the market maker move now
    POST   /control/mid                 {symbol, price}
    POST   /control/withdraw-quotes     {symbol}: an empty book but for clients' orders; pauses
    POST   /control/clock               {skew_ms}: the venue's clock runs ahead of the machine's

Amounts and prices are decimal texts, `account` may be left out when there is one. All but faults,
pause and clock are commands in the journal. Answers to bad input: 400 with `{"error": text}`.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from matching.model import Side
from venues.simulator import wire
from venues.simulator.commands import (
    Command,
    CreditDeposit,
    MoveMid,
    SetBalance,
    SetDepositAddress,
    SetFees,
    SettleWithdrawal,
    StepMaker,
    WithdrawQuotes,
)
from venues.simulator.core import VenueCore
from venues.simulator.decimals import text_from_units, units_from_text
from venues.simulator.faults import Fault, FaultSchedule
from venues.simulator.funding import withdrawal_as_of
from venues.simulator.market import Market
from venues.simulator.model import FeeRates, WithdrawalStatus
from venues.simulator.state import Account, VenueState, network_of

STEPS_MAX: Final = 10_000

Sent = dict[str, Any]


class ControlError(Exception):
    """Input the control endpoint cannot use; the text says why."""


class Control:
    """The operator's verbs over a running venue."""

    def __init__(
        self, core: VenueCore, faults: FaultSchedule, *, subscriptions: Callable[[], int]
    ) -> None:
        self._core = core
        self._faults = faults
        self.paused = False
        self._verbs: dict[tuple[str, str], Callable[[Sent], Any]] = {
            ("GET", "state"): lambda _: true_state(core),
            ("GET", "subscriptions"): lambda _: {"user": subscriptions()},
            ("GET", "faults"): lambda _: [msgspec.to_builtins(f) for f in faults.pending()],
            ("POST", "faults"): self._schedule,
            ("DELETE", "faults"): lambda _: faults.clear(),
            ("POST", "fund"): self._deposit,
            ("POST", "deposit"): self._deposit,
            ("POST", "balance"): self._balance,
            ("POST", "fees"): self._fees,
            ("POST", "withdrawal"): self._withdrawal,
            ("POST", "deposit-address"): self._deposit_address,
            ("POST", "maker"): self._maker,
            ("POST", "step"): self._step,
            ("POST", "mid"): self._mid,
            ("POST", "withdraw-quotes"): self._withdraw_quotes,
            ("POST", "clock"): self._clock,
        }

    def answer(self, method: str, verb: str, sent: Sent) -> Any:
        """Do what is asked.

        Raises:
            ControlError: unknown verb, or input that cannot be used.
            VenueRefusal: the venue itself refuses, for example an unknown withdrawal.
        """
        act = self._verbs.get((method, verb))
        if act is None:
            known = ", ".join(f"{m} {v}" for m, v in self._verbs)
            raise ControlError(f"no control verb {method} {verb}; there are: {known}")
        return act(sent)

    def _schedule(self, sent: Sent) -> Any:
        try:
            fault = msgspec.convert(sent, Fault)
        except msgspec.ValidationError as error:
            raise ControlError(f"fault {sent}: {error}") from error
        self._faults.add(fault)
        return msgspec.to_builtins(fault)

    def _deposit(self, sent: Sent) -> Any:
        account, asset = self._account(sent), self._asset(sent)
        network = network_of(self._core.state.assets[asset], str(sent.get("network", "")))
        return self._execute(
            CreditDeposit(
                at_ms=self._core.accepted_at(),
                account=account.spec.name,
                asset=asset,
                amount_units=_units(sent, "amount"),
                network="" if network is None else network.name,
                address=str(sent.get("address", "")),
                tx_id=str(sent.get("tx_id", "")),
            )
        )

    def _balance(self, sent: Sent) -> Any:
        name, asset = self._account(sent).spec.name, self._asset(sent)
        at_ms = self._core.accepted_at()
        return self._execute(SetBalance(at_ms, name, asset, _units(sent, "free")))

    def _fees(self, sent: Sent) -> Any:
        account = self._account(sent)
        now = account.fees
        asset = self._asset(sent) if sent.get("asset") else None
        fees = FeeRates(
            maker_ppm=int(sent.get("maker_ppm", now.maker_ppm)),
            taker_ppm=int(sent.get("taker_ppm", now.taker_ppm)),
            asset=asset,
        )
        return self._execute(SetFees(self._core.accepted_at(), account.spec.name, fees))

    def _withdrawal(self, sent: Sent) -> Any:
        status = str(sent.get("status", "COMPLETED"))
        if status not in ("COMPLETED", "REJECTED", "FAILED"):
            raise ControlError(f"status {status!r}: COMPLETED, REJECTED or FAILED")
        return self._execute(
            SettleWithdrawal(
                at_ms=self._core.accepted_at(),
                withdrawal_id=_text(sent, "id"),
                status=WithdrawalStatus[status],
                tx_id=str(sent.get("tx_id", "")),
            )
        )

    def _deposit_address(self, sent: Sent) -> Any:
        account, asset = self._account(sent), self._asset(sent)
        network = network_of(self._core.state.assets[asset], str(sent.get("network", "")))
        if network is None:
            raise ControlError(f"asset {asset} has no network {sent.get('network')!r}")
        address = _text(sent, "address")
        at_ms = self._core.accepted_at()
        name = account.spec.name
        return self._execute(SetDepositAddress(at_ms, name, asset, network.name, address))

    def _maker(self, sent: Sent) -> Any:
        self.paused = bool(sent.get("paused", True))
        return {"paused": self.paused}

    def _step(self, sent: Sent) -> Any:
        count = int(sent.get("count", 1))
        if not 0 <= count <= STEPS_MAX:
            raise ControlError(f"count {count}: from 0 to {STEPS_MAX}")
        for _ in range(count):
            self._core.execute(StepMaker(self._core.accepted_at()))
        return {"step": self._core.state.step}

    def _mid(self, sent: Sent) -> Any:
        spec = self._market(sent).spec
        ticks = _units(sent, "price") // spec.tick_units
        if ticks <= 0:
            raise ControlError(f"price {sent.get('price')!r} is below one tick")
        return self._execute(MoveMid(self._core.accepted_at(), spec.name, ticks))

    def _withdraw_quotes(self, sent: Sent) -> Any:
        self.paused = True
        name = self._market(sent).spec.name
        return self._execute(WithdrawQuotes(self._core.accepted_at(), name))

    def _clock(self, sent: Sent) -> Any:
        self._core.skew_ms = int(sent.get("skew_ms", 0))
        return {"server_time": self._core.now_ms()}

    def _execute(self, command: Command) -> Any:
        self._core.execute(command)
        return {"at_ms": command.at_ms}

    def _account(self, sent: Sent) -> Account:
        accounts = self._core.state.accounts
        name = str(sent.get("account") or next(iter(accounts)))
        if name not in accounts:
            raise ControlError(f"no account {name!r}; there are: {', '.join(accounts)}")
        return accounts[name]

    def _asset(self, sent: Sent) -> str:
        assets = self._core.state.assets
        name = _text(sent, "asset")
        if name not in assets:
            raise ControlError(f"no asset {name!r}; there are: {', '.join(assets)}")
        return name

    def _market(self, sent: Sent) -> Market:
        markets = self._core.state.markets
        name = _text(sent, "symbol")
        if name not in markets:
            raise ControlError(f"no symbol {name!r}; there are: {', '.join(markets)}")
        return markets[name]


def true_state(core: VenueCore) -> wire.Json:
    """Everything the venue holds of its accounts, and the top of each book."""
    state, now_ms = core.state, core.now_ms()
    return {
        "at_ms": now_ms,
        "step": state.step,
        "replayed": core.replayed,
        "accounts": {name: _account_state(state, name, now_ms) for name in state.accounts},
        "symbols": {name: _market_state(market) for name, market in state.markets.items()},
    }


def _account_state(state: VenueState, name: str, now_ms: int) -> wire.Json:
    account = state.accounts[name]
    specs = {market: state.markets[market].spec for market in state.markets}
    withdrawals = [withdrawal_as_of(state, w, now_ms) for w in account.withdrawals.values()]
    return {
        "balances": {
            asset: {
                "free": text_from_units(account.wallet.free(asset)),
                "locked": text_from_units(account.wallet.locked(asset)),
            }
            for asset in account.wallet.assets()
        },
        "orders": [wire.order_row(specs[o.symbol], o) for o in state.orders_of(name)],
        "fills": [
            {**wire.fill_row(specs[f.symbol], f), "clientOrderId": f.client_order_id}
            for f in account.fills
        ],
        "withdrawals": [wire.withdrawal_row(row) for row in withdrawals],
        "deposits": [wire.deposit_row(row) for row in account.deposits],
        "fees": msgspec.to_builtins(account.fees),
    }


def _market_state(market: Market) -> wire.Json:
    return {
        "mid": wire.price_text(market.spec, market.mid_ticks),
        "update_id": market.update_id,
        "next_order_id": market.next_order_id,
        "next_trade_id": market.next_trade_id,
        "bids": wire.level_texts(market.spec, market.book.depth(Side.BUY, 5)),
        "asks": wire.level_texts(market.spec, market.book.depth(Side.SELL, 5)),
    }


def _text(sent: Sent, name: str) -> str:
    value = sent.get(name)
    if not isinstance(value, str) or not value:
        raise ControlError(f"{name!r} must be a text")
    return value


def _units(sent: Sent, name: str) -> int:
    return units_from_text(name, _text(sent, name))
