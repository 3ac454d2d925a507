"""The WebSocket API: ping, time, and the user data stream by signature.

Source: binance-spot-api-docs, web-socket-api.md. The signature is over the parameters sorted by
name and joined as a query string.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from venues.simulator import auth, wire
from venues.simulator.commands import BalancesChanged, FundsMoved, OrderUpdated, VenueEvent
from venues.simulator.connections import Connection
from venues.simulator.core import VenueCore
from venues.simulator.errors import VenueRefusal, missing
from venues.simulator.state import VenueState

STREAM: Final = "user"


class UserStreams:
    """Subscriptions of all WebSocket API connections: subscription id to account."""

    def __init__(self) -> None:
        self._subscribers: dict[Connection, dict[int, str]] = {}
        self._next_id = 0

    @property
    def made(self) -> int:
        """How many subscriptions were ever made; it only rises, so a test can wait for its own."""
        return self._next_id

    def connections(self) -> list[Connection]:
        """All connections."""
        return list(self._subscribers)

    def join(self, connection: Connection) -> None:
        """Add a connection without subscriptions."""
        self._subscribers[connection] = {}

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        self._subscribers.pop(connection, None)

    def receive(self, core: VenueCore, connection: Connection, text: str) -> None:
        """Answer a client's request."""
        try:
            request = orjson.loads(text)
        except orjson.JSONDecodeError:
            request = None
        if not isinstance(request, dict):
            connection.answer({"id": None, **_failed(VenueRefusal(-1135, "Invalid JSON Request"))})
            return
        try:
            answer = {"status": 200, "result": self._answered(core, connection, request)}
        except VenueRefusal as refusal:
            answer = _failed(refusal)
        connection.answer({"id": request.get("id"), **answer})

    def publish(self, state: VenueState, events: Sequence[VenueEvent], now_ms: int) -> None:
        """Send accounts what happened to them, in order."""
        for event in events:
            match event:
                case OrderUpdated():
                    spec = state.markets[event.order.symbol].spec
                    frame = wire.execution_report(spec, event, now_ms)
                    self._send(event.order.account, frame)
                case BalancesChanged():
                    self._send(event.account, wire.account_position(event, now_ms))
                case FundsMoved():
                    self._send(event.account, wire.balance_update(event, now_ms))
                case _:
                    pass

    def _send(self, account: str, frame: wire.Json) -> None:
        for connection, subscriptions in self._subscribers.items():
            for subscription_id, name in subscriptions.items():
                if name == account:
                    connection.offer(STREAM, {"subscriptionId": subscription_id, "event": frame})

    def _answered(
        self, core: VenueCore, connection: Connection, request: Mapping[str, Any]
    ) -> wire.Json:
        subscriptions = self._subscribers[connection]
        match request.get("method"):
            case "ping":
                return {}
            case "time":
                return {"serverTime": core.now_ms()}
            case "userDataStream.subscribe.signature":
                account = _authenticated(core, request.get("params"))
                subscriptions[self._next_id] = account
                self._next_id += 1
                return {"subscriptionId": self._next_id - 1}
            case "userDataStream.unsubscribe":
                subscriptions.clear()
                return {}
            case _:
                raise VenueRefusal(-1020, "This operation is not supported.")


def _authenticated(core: VenueCore, params: object) -> str:
    if not isinstance(params, dict):
        raise missing("params")
    sent = {str(name): str(value) for name, value in params.items()}
    account = auth.account_of_key(core.state, sent.get("apiKey", ""))
    signature = sent.pop("signature", "")
    if not signature:
        raise missing("signature")
    payload = "&".join(f"{name}={sent[name]}" for name in sorted(sent))
    auth.require_signature_of(account.spec.secret, payload, signature)
    auth.require_timely(sent, core.now_ms())
    return account.spec.name


def _failed(refusal: VenueRefusal) -> wire.Json:
    error = {"code": refusal.code, "msg": refusal.text}
    return {"status": refusal.status, "error": error}
