"""The WebSocket API: the endpoints of REST, sessions, and the user data stream.

Every method answers `{id, status, result | error, rateLimits}`. A signature is over the parameters
sorted by name and joined as a query string; a session that an Ed25519 key has logged on needs
neither key nor signature. Source: binance-spot-api-docs, web-socket-api.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from venues.simulator.binance import auth, signatures, wire
from venues.simulator.binance.calls import Call, Endpoint, Needs
from venues.simulator.binance.endpoints import METHODS
from venues.simulator.binance.rates import Limited, Limits
from venues.simulator.binance.refusals import ApiError, missing, spelled
from venues.simulator.binance.user_events import frame_of
from venues.simulator.commands import VenueEvent
from venues.simulator.connections import Connection
from venues.simulator.core import VenueCore
from venues.simulator.errors import VenueRefusal
from venues.simulator.model import ApiKeySpec
from venues.simulator.state import VenueState

STREAM: Final = "user"
CONNECT_WEIGHT: Final = 2
SUBSCRIPTIONS_MAX: Final = 1_000


@dataclass(slots=True)
class Session:
    """One connection: whose it is since when, and which accounts' events it hears."""

    connected_ms: int
    returns_limits: bool = True
    key: ApiKeySpec | None = None
    authorized_ms: int | None = None
    subscriptions: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it was read: `sent` holds all parameters as texts."""

    id: Any
    method: str
    sent: Mapping[str, str]


class SocketApi:
    """Sessions of all WebSocket API connections."""

    def __init__(self, core: VenueCore, limits: Limits) -> None:
        self._core = core
        self._limits = limits
        self._sessions: dict[Connection, Session] = {}
        self._next_id = 0
        self._own: dict[str, Callable[[Session, Request], Any]] = {
            "session.logon": self._log_on,
            "session.logout": self._log_out,
            "session.status": lambda session, _: self._status(session),
            "session.subscriptions": lambda session, _: [
                {"subscriptionId": number} for number in session.subscriptions
            ],
            "userDataStream.subscribe": self._subscribe,
            "userDataStream.subscribe.signature": self._subscribe_signed,
            "userDataStream.unsubscribe": self._unsubscribe,
        }

    @property
    def made(self) -> int:
        """How many subscriptions were ever made; it only rises, so a test can wait for its own."""
        return self._next_id

    def connections(self) -> list[Connection]:
        """All connections."""
        return list(self._sessions)

    def join(self, connection: Connection, *, returns_limits: bool) -> None:
        """Add a connection without subscriptions."""
        now_ms = self._core.now_ms()
        self._limits.spend_weight(CONNECT_WEIGHT, now_ms)
        self._sessions[connection] = Session(now_ms, returns_limits)

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        self._sessions.pop(connection, None)

    def receive(self, connection: Connection, text: str) -> None:
        """Answer a client's request."""
        session, request = self._sessions[connection], None
        try:
            request = _read(text)
            answer = {"status": 200, "result": self._result(session, request)}
        except VenueRefusal as refusal:
            answer = self._failed(spelled(refusal))
        except ApiError as error:
            answer = self._failed(error)
        if _wants_limits(session, request):
            answer["rateLimits"] = self._spent(session, request)
        connection.answer({"id": None if request is None else request.id, **answer})

    def publish(self, state: VenueState, events: Sequence[VenueEvent], now_ms: int) -> None:
        """Send accounts what happened to them, in order."""
        if not any(session.subscriptions for session in self._sessions.values()):
            return
        for event in events:
            if (found := frame_of(state, event, now_ms)) is not None:
                self._send(*found)

    def _send(self, account: str, frame: wire.Json) -> None:
        for connection, session in self._sessions.items():
            for number, name in session.subscriptions.items():
                if name == account:
                    framed = {"subscriptionId": number, "event": frame}
                    connection.offer(STREAM, framed, private=True)

    def _result(self, session: Session, request: Request) -> Any:
        own = self._own.get(request.method)
        now_ms = self._core.now_ms()
        if own is not None:
            self._limits.spend_weight(2, now_ms)
            return own(session, request)
        endpoint = METHODS.get(request.method)
        if endpoint is None:
            raise ApiError(-1020, "This operation is not supported.")
        self._limits.spend_weight(endpoint.weight_of(request.sent), now_ms)
        return endpoint.answer(self._call(session, endpoint, request))

    def _call(self, session: Session, endpoint: Endpoint, request: Request) -> Call:
        core, sent = self._core, request.sent
        if endpoint.needs is Needs.NOTHING:
            return Call(core, self._limits, sent, None, None)
        key = self._authenticated(session, sent)
        auth.require_permission(key, endpoint.needs.value)
        account = core.state.accounts_by_key[key.api_key]
        if endpoint.orders:
            self._limits.spend_orders(account.spec.name, endpoint.orders, core.now_ms())
        return Call(core, self._limits, sent, account, key)

    def _authenticated(self, session: Session, sent: Mapping[str, str]) -> ApiKeySpec:
        """The key of a request: its own, signed, or the session's with a time."""
        if session.key is not None and "signature" not in sent:
            auth.require_timely(sent, self._core.now_ms())
            return session.key
        key = auth.key_named(self._core.state, sent.get("apiKey", ""))
        if not sent.get("signature"):
            raise missing("signature")
        _require_signature(key, sent)
        auth.require_timely(sent, self._core.now_ms())
        return key

    def _log_on(self, session: Session, request: Request) -> Any:
        key = auth.key_named(self._core.state, request.sent.get("apiKey", ""))
        if not signatures.is_ed25519(key):
            raise ApiError(-4056, "HMAC_SHA256 API key is not supported.")
        if not request.sent.get("signature"):
            raise missing("signature")
        _require_signature(key, request.sent)
        auth.require_timely(request.sent, self._core.now_ms())
        session.key, session.authorized_ms = key, self._core.now_ms()
        return self._status(session)

    def _log_out(self, session: Session, _request: Request) -> Any:
        session.key = session.authorized_ms = None
        session.subscriptions.clear()
        return self._status(session)

    def _status(self, session: Session) -> Any:
        return {
            "apiKey": None if session.key is None else session.key.api_key,
            "authorizedSince": session.authorized_ms,
            "connectedSince": session.connected_ms,
            "returnRateLimits": session.returns_limits,
            "serverTime": self._core.now_ms(),
            "userDataStream": bool(session.subscriptions),
        }

    def _subscribe(self, session: Session, _request: Request) -> Any:
        if session.key is None:
            raise ApiError(-1102, "Session is not authenticated; log on first.")
        return self._subscribed(session, session.key)

    def _subscribe_signed(self, session: Session, request: Request) -> Any:
        return self._subscribed(session, self._authenticated(session, request.sent))

    def _subscribed(self, session: Session, key: ApiKeySpec) -> Any:
        auth.require_permission(key, Needs.READ.value)
        if len(session.subscriptions) >= SUBSCRIPTIONS_MAX:
            raise ApiError(-1191, "Too many subscriptions on this connection.")
        number = self._next_id
        self._next_id += 1
        session.subscriptions[number] = self._core.state.accounts_by_key[key.api_key].spec.name
        return {"subscriptionId": number}

    def _unsubscribe(self, session: Session, request: Request) -> Any:
        wanted = request.sent.get("subscriptionId", "")
        if not wanted:
            session.subscriptions.clear()
        elif wanted.isdecimal():
            session.subscriptions.pop(int(wanted), None)
        return {}

    def _failed(self, error: ApiError) -> wire.Json:
        body: wire.Json = {"code": error.code, "msg": error.text}
        if error.data is not None:
            body["data"] = error.data
        if isinstance(error, Limited):
            body["data"] = {"serverTime": self._core.now_ms(), "retryAfter": error.retry_ms}
        return {"status": error.status, "error": body}

    def _spent(self, session: Session, request: Request | None) -> list[dict[str, Any]]:
        """The limits a request has touched."""
        now_ms = self._core.now_ms()
        status = [self._limits.weight_status(now_ms)]
        endpoint = None if request is None else METHODS.get(request.method)
        if request is None or endpoint is None or not endpoint.orders:
            return status
        name = request.sent.get("apiKey", "" if session.key is None else session.key.api_key)
        account = self._core.state.accounts_by_key.get(name)
        if account is None:
            return status
        return [*self._limits.order_status(account.spec.name, now_ms), *status]


def _read(text: str) -> Request:
    try:
        asked = orjson.loads(text)
    except orjson.JSONDecodeError:
        asked = None
    if not isinstance(asked, dict) or not isinstance(asked.get("method"), str):
        raise ApiError(-1135, "Invalid JSON Request")
    given = asked.get("params") or {}
    if not isinstance(given, dict):
        raise ApiError(-1135, "JSON sent for parameter 'params' is not valid")
    sent = {str(name): _text(value) for name, value in given.items() if value is not None}
    return Request(asked.get("id"), asked["method"].removeprefix("v3/"), sent)


def _text(value: Any) -> str:
    """A parameter as REST would have it: truth values in lower case, lists as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _require_signature(key: ApiKeySpec, sent: Mapping[str, str]) -> None:
    """Check the signature over the sorted parameters, percent-encoded or as they are."""
    signed = sorted((name, value) for name, value in sent.items() if name != "signature")
    plain = "&".join(f"{name}={value}" for name, value in signed)
    payloads = {plain, urlencode(signed)}
    if not any(signatures.is_signed_by(key, payload, sent["signature"]) for payload in payloads):
        raise ApiError(-1022, "Signature for this request is not valid.")


def _wants_limits(session: Session, request: Request | None) -> bool:
    wanted = "" if request is None else request.sent.get("returnRateLimits", "")
    return session.returns_limits if not wanted else wanted == "true"
