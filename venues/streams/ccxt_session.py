"""One connection of an unmodified ccxt.pro class, of which every raw frame is read by us first.

ccxt.pro makes the connection, signs, pings and paces. What it does with private frames is not used:
it drops some, routes others by their first item, keeps them for ever, and one frame that it cannot
parse ends its receiving loop without a word. So the client's own reader is wrapped, on the instance:
frames of the stream become events and go no further, answers to requests go on to ccxt.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import ccxt.async_support as ccxt_rest
import structlog

from kernel.clock import Clock
from kernel.errors import BadInput
from venues.ccxt.classify import failure_of
from venues.streams.errors import StreamLost
from venues.streams.model import FillSeen, GapReason, StreamEvent, StreamGap
from venues.streams.reading import decode

log = structlog.get_logger()

QUEUE_MAX: Final = 10_000
SEEN_MAX: Final = 20_000
QUESTION: Final = "causeway-"
"""How the ids of our own questions begin."""

CLOSED: Final = "causeway:closed"
WRONG_SHAPE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
FAILURES: Final = (ccxt_rest.BaseError, OSError, *WRONG_SHAPE)
"""How a call of ccxt ends when there is no answer that can be read."""


class Frames(Protocol):
    """Reads the frames of one connection, without doing anything else."""

    def read(self, frame: Any, now: datetime) -> Sequence[StreamEvent] | None:
        """Return a frame's events; None: it is an answer to a request.

        Raises:
            BadInput: the frame cannot be read.
        """
        ...


class CcxtSession:
    """See `venues.streams.port.StreamSession`.

    `ask` and `answered` are for the adapters: a question over the same connection, its answer.
    """

    def __init__(
        self,
        client: Any,
        frames: Frames,
        clock: Clock,
        *,
        silence_max: timedelta | None,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        """Listen to *client*, which must not be connected yet."""
        self._client = client
        self._frames = frames
        self._clock = clock
        self._silence_max = silence_max
        self._queue_max = queue_max
        self._events: deque[StreamEvent] = deque()
        self._arrived = asyncio.Event()
        self._lost: StreamLost | None = None
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._questions: dict[str, asyncio.Future[Mapping[str, Any]]] = {}
        self._asked = 0
        self._pass_on = client.handle_text_or_binary_message
        self._heard_at = self.subscribed_at = clock.now()
        client.handle_text_or_binary_message = self._receive
        client.future = _retrieved(client.future)
        client.future(CLOSED).add_done_callback(self._note_end)

    subscribed_at: datetime

    @property
    def heard_at(self) -> datetime:
        """Return when the venue last said something of its own accord."""
        return self._heard_at

    @property
    def silence_max(self) -> timedelta | None:
        """Return how long the venue may be silent; None: as long as nothing happens."""
        return self._silence_max

    @property
    def seen(self) -> Collection[tuple[str, str]]:
        """Return (symbol, trade id) of the trades that came lately."""
        return self._seen.keys()

    async def next(self, limit: int) -> Sequence[StreamEvent]:
        """Wait for events; at least one, at most *limit*.

        Raises:
            StreamLost: the connection is of no use any more.
        """
        while not self._events:
            if self._lost is not None:
                raise self._lost
            self._arrived.clear()
            await self._arrived.wait()
        return [self._events.popleft() for _ in range(min(limit, len(self._events)))]

    async def ask(
        self,
        question: Mapping[str, Any],
        *,
        name: str,
        timeout: timedelta,  # noqa: ASYNC109  turned into what went wrong
    ) -> Mapping[str, Any]:
        """Send a question whose id goes into the field *name*, and return the answer.

        Raises:
            StreamLost: there was none in time.
        """
        self._asked += 1
        number = self._asked
        waiting: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        waiting.add_done_callback(_retrieve)
        self._questions[str(number)] = waiting
        try:
            async with asyncio.timeout(timeout / timedelta(seconds=1)):
                await self._client.send({**question, name: _name(name, number)})
                return await waiting
        except TimeoutError as error:
            raise self.loss(GapReason.UNANSWERED, "a question was not answered") from error
        except FAILURES as error:
            raise self.loss(GapReason.CLOSED, failure_of(error).reason) from error
        finally:
            self._questions.pop(str(number), None)

    async def probe(self, timeout: timedelta) -> None:  # noqa: ASYNC109  see `ask`
        """Be sure that the venue answers on this connection; adapters ask more."""
        await self.ask({"method": "ping"}, name="id", timeout=timeout)

    def begin(self) -> None:
        """Count from now as subscribed."""
        self.subscribed_at = self._heard_at = self._clock.now()

    def loss(self, reason: GapReason, detail: str) -> StreamLost:
        """Return the error that says since when the stream is of no use."""
        return StreamLost(reason, detail, since=self._heard_at)

    def _receive(self, data: Any) -> None:
        """Take a raw frame. Whatever it holds, nothing is raised into ccxt's receiving loop."""
        if self._lost is not None:
            return
        now = self._clock.now()
        text = data.decode(errors="replace") if isinstance(data, bytes) else str(data)
        try:
            frame = decode(text)
            events = self._frames.read(frame, now)
        except (BadInput, *WRONG_SHAPE) as error:
            self._end(GapReason.UNREADABLE, str(error))
            return
        if events is None:
            self._take_answer(frame, data)
            return
        self._heard_at = now
        for event in events:
            self._put(event)

    def _put(self, event: StreamEvent) -> None:
        if isinstance(event, StreamGap):
            self._end(event.reason, event.detail)
            return
        if len(self._events) >= self._queue_max:
            self._end(GapReason.OVERFLOW, f"more than {self._queue_max} events wait to be written")
            return
        if isinstance(event, FillSeen):
            self._seen[event.fill.symbol, event.fill.trade_id] = None
            if len(self._seen) > SEEN_MAX:
                self._seen.popitem(last=False)
        self._events.append(event)
        self._arrived.set()

    def _take_answer(self, frame: Any, data: Any) -> None:
        question = _question_of(frame)
        if question is not None:
            waiting = self._questions.get(question)
            if waiting is not None and not waiting.done():
                waiting.set_result(frame)
            return
        try:
            self._pass_on(data)
        except FAILURES as error:
            self._end(GapReason.UNREADABLE, f"ccxt cannot read an answer: {type(error).__name__}")

    def _note_end(self, future: Any) -> None:
        """Called by ccxt, through the future that it rejects when the connection ends."""
        if not future.cancelled():
            error = future.exception()
            self._end(GapReason.CLOSED, str(error)[:200])

    def _end(self, reason: GapReason, detail: str) -> None:
        if self._lost is None:
            self._lost = self.loss(reason, detail)
            self._arrived.set()
            for waiting in self._questions.values():
                if not waiting.done():
                    waiting.set_exception(ccxt_rest.NetworkError(detail))


def _retrieved(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return *make* so that asyncio does not tell standard error of futures nobody waits for."""

    def future(message_hash: Any) -> Any:
        made = make(message_hash)
        made.remove_done_callback(_retrieve)
        made.add_done_callback(_retrieve)
        return made

    return future


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


def _name(field: str, number: int) -> str | int:
    """Return the id of a question: Kraken takes numbers only, in ``req_id``."""
    return QUESTION_BASE + number if field == "req_id" else f"{QUESTION}{number}"


def _question_of(frame: Any) -> str | None:
    if not isinstance(frame, Mapping):
        return None
    name, number = frame.get("id"), frame.get("req_id")
    if isinstance(name, str) and name.startswith(QUESTION):
        return name.removeprefix(QUESTION)
    if isinstance(number, int) and number > QUESTION_BASE:
        return str(number - QUESTION_BASE)
    return None


QUESTION_BASE: Final = 1_000_000_000
"""ccxt counts its own ``req_id`` from 1."""
