"""The control endpoint: what an operator or a test may do that no client may.

    GET    /control/state               the true state: every balance, order, fill, movement
    GET    /control/subscriptions       {user}: how many user data streams were ever subscribed to
    GET    /control/faults              faults not yet spent
    POST   /control/faults              schedule one: {kind, path, method, count, skip, seconds}
    DELETE /control/faults              forget all of them
    GET    /control/schedule            the random schedule of faults and what it drew so far
    POST   /control/schedule            {seed, rates: [{kind, ppm, path, method, seconds}], limit}, or
                                        {seed, rate}: every kind that ends by itself, `rate` of 1
    DELETE /control/schedule            end it
    POST   /control/fund                {account, asset, amount}
    POST   /control/deposit             the same with {network, address, tx_id, status}: listed as a
                                        deposit; `pending` moves no balance until sent as `credited`
    POST   /control/balance             {account, asset, free}: overwrite, as no honest venue would
    POST   /control/fees                {account, maker_ppm, taker_ppm, asset}
    POST   /control/withdrawal          {id, status: COMPLETED|REJECTED|FAILED, tx_id}
    POST   /control/deposit-address     {account, asset, network, address}
    POST   /control/withdrawal-address  {account, name, asset, network, address, tag}: saved by name
    POST   /control/key                 {account, api_key, secret, public_key, permissions, ...}
    POST   /control/dead-man            {account, fires_ms}: null disarms
    POST   /control/late-fill           {account, symbol, client_order_id, quantity}: of a cancelled one
    POST   /control/withhold            {account, symbol, client_order_id} or {account, fills: N newest}
                                        or {withdrawal: id}: out of what queries answer
    DELETE /control/withhold            answer queries truly again
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

from venues.simulator import schedule
from venues.simulator.commands import (
    Command,
    CreditDeposit,
    LateFill,
    MoveMid,
    SaveWithdrawalAddress,
    SetBalance,
    SetDeadMan,
    SetDepositAddress,
    SetFees,
    SetKey,
    SettleWithdrawal,
    StepMaker,
    WithdrawQuotes,
)
from venues.simulator.core import VenueCore
from venues.simulator.decimals import units_from_text
from venues.simulator.faults import Fault, FaultSchedule
from venues.simulator.market import Market
from venues.simulator.model import ApiKeySpec, FeeRates, Order, WithdrawalStatus
from venues.simulator.schedule import SeededFaults
from venues.simulator.state import Account, network_of
from venues.simulator.truth import true_state

STEPS_MAX: Final = 10_000
PERMISSIONS: Final = ("read", "trade", "withdraw")

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
            ("GET", "schedule"): lambda _: self._drawn(),
            ("POST", "schedule"): self._schedule_randomly,
            ("DELETE", "schedule"): lambda _: setattr(faults, "random", None),
            ("POST", "fund"): self._deposit,
            ("POST", "deposit"): self._deposit,
            ("POST", "balance"): self._balance,
            ("POST", "fees"): self._fees,
            ("POST", "withdrawal"): self._withdrawal,
            ("POST", "deposit-address"): self._deposit_address,
            ("POST", "withdrawal-address"): self._withdrawal_address,
            ("POST", "withdraw-address"): self._withdrawal_address,
            ("POST", "key"): self._key,
            ("POST", "dead-man"): self._dead_man,
            ("POST", "late-fill"): self._late_fill,
            ("POST", "withhold"): self._withhold,
            ("DELETE", "withhold"): self._tell_again,
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

    def _schedule_randomly(self, sent: Sent) -> Any:
        self._faults.random = SeededFaults(schedule.read(sent))
        return self._drawn()

    def _drawn(self) -> Any:
        random = self._faults.random
        if not isinstance(random, SeededFaults):
            return {"schedule": None, "drawn": []}
        drawn = [{"kind": kind, "what": what, "number": n} for kind, what, n in random.drawn]
        return {"schedule": msgspec.to_builtins(random.schedule), "drawn": drawn}

    def _deposit(self, sent: Sent) -> Any:
        account, asset = self._account(sent), self._asset(sent)
        network = network_of(self._core.state.assets[asset], str(sent.get("network", "")))
        status = str(sent.get("status", "credited"))
        if status not in ("pending", "credited"):
            raise ControlError(f"status {status!r}: pending or credited")
        return self._execute(
            CreditDeposit(
                at_ms=self._core.accepted_at(),
                account=account.spec.name,
                asset=asset,
                amount_units=_units(sent, "amount"),
                network="" if network is None else network.name,
                address=str(sent.get("address", "")),
                tx_id=str(sent.get("tx_id", "")),
                pending=status == "pending",
            )
        )

    def _withdrawal_address(self, sent: Sent) -> Any:
        return self._execute(
            SaveWithdrawalAddress(
                at_ms=self._core.accepted_at(),
                account=self._account(sent).spec.name,
                name=_text(sent, "key" if "key" in sent else "name"),
                asset=self._asset(sent),
                network=str(sent.get("network", "")),
                address=_text(sent, "address"),
                tag_text=str(sent.get("tag", "")),
            )
        )

    def _key(self, sent: Sent) -> Any:
        told = {name: value for name, value in sent.items() if name != "account"}
        try:
            key = msgspec.convert(told, ApiKeySpec)
        except msgspec.ValidationError as error:
            raise ControlError(f"key {sorted(told)}: {error}") from error
        if unknown := set(key.permissions) - set(PERMISSIONS):
            raise ControlError(f"permissions {sorted(unknown)}: of {', '.join(PERMISSIONS)}")
        return self._execute(SetKey(self._core.accepted_at(), self._account(sent).spec.name, key))

    def _dead_man(self, sent: Sent) -> Any:
        fires_ms = None if sent.get("fires_ms") is None else int(sent["fires_ms"])
        name = self._account(sent).spec.name
        return self._execute(SetDeadMan(self._core.accepted_at(), name, fires_ms))

    def _late_fill(self, sent: Sent) -> Any:
        market, order = self._market(sent), self._order(sent)
        lots = order.remaining_lots
        if "quantity" in sent:
            lots = _units(sent, "quantity") // market.spec.lot_units
        at_ms = self._core.accepted_at()
        return self._execute(LateFill(at_ms, order.account, order.symbol, order.order_id, lots))

    def _withhold(self, sent: Sent) -> Any:
        state = self._core.state
        if "fills" in sent:
            count = int(sent["fills"])
            newest = self._account(sent).fills[-count:] if count > 0 else []
            state.withheld_fills.update((fill.symbol, fill.trade_id) for fill in newest)
            return {"fills": len(newest)}
        if "withdrawal" in sent:
            if state.find_withdrawal(_text(sent, "withdrawal")) is None:
                raise ControlError(f"no withdrawal {sent['withdrawal']!r}")
            state.withheld_withdrawals.add(_text(sent, "withdrawal"))
            return {"withdrawal": sent["withdrawal"]}
        order = self._order(sent)
        state.withheld.add((order.symbol, order.order_id))
        return {"order_id": order.order_id}

    def _tell_again(self, _sent: Sent) -> Any:
        self._core.state.withheld.clear()
        self._core.state.withheld_fills.clear()
        self._core.state.withheld_withdrawals.clear()
        return {}

    def _order(self, sent: Sent) -> Order:
        account, symbol = self._account(sent).spec.name, self._market(sent).spec.name
        client_order_id, order_id = sent.get("client_order_id"), sent.get("order_id")
        for order in reversed(self._core.state.all_orders_of(account)):
            if order.symbol == symbol and (
                order.order_id == order_id or order.client_order_id == client_order_id
            ):
                return order
        raise ControlError(
            f"no order {client_order_id or order_id!r} of {account} in {symbol}: name it by "
            f"'client_order_id' or 'order_id'"
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


def _text(sent: Sent, name: str) -> str:
    value = sent.get(name)
    if not isinstance(value, str) or not value:
        raise ControlError(f"{name!r} must be a text")
    return value


def _units(sent: Sent, name: str) -> int:
    return units_from_text(name, _text(sent, name))
