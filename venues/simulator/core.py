"""One door to the venue's state: check, write to the journal, apply, publish."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from kernel.clock import Clock, to_unix_ms
from venues.simulator import checkpoint
from venues.simulator.commands import (
    Command,
    MirrorLevels,
    MirrorTrade,
    PassTime,
    StepMaker,
    VenueEvent,
)
from venues.simulator.errors import JournalDamaged, VenueRefusal
from venues.simulator.exchange import Exchange
from venues.simulator.group_commit import GroupCommit
from venues.simulator.journal import FILE_NAME, Journal, require_same
from venues.simulator.model import Genesis
from venues.simulator.settings import VenueSimulatorSettings
from venues.simulator.state import VenueState

Publisher = Callable[[Sequence[VenueEvent]], None]

HOUSE_MOVES: Final = (StepMaker, MirrorLevels, MirrorTrade)


class VenueCore:
    """The exchange with its journal and its clock. Single-threaded; nothing here waits."""

    def __init__(
        self,
        settings: VenueSimulatorSettings,
        clock: Clock,
        *,
        publish: Publisher,
        failed: Callable[[Exception], None],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._publish = publish
        self._failed = failed
        self._last_ms = 0
        self._since_checkpoint = 0
        self._unheard: deque[tuple[int, tuple[VenueEvent, ...]]] = deque()
        self._listeners: list[Callable[[Sequence[VenueEvent]], None]] = []
        self.skew_ms = 0
        self._journal = Journal(settings.data_dir / FILE_NAME, fsync=settings.fsync)
        sync = self._journal.flush if settings.fsync else None
        self._commit = GroupCommit(sync, self._heard, failed)
        with ExitStack() as undo:
            undo.callback(self._journal.close)
            self.exchange, from_byte = self._restored(settings.genesis(to_unix_ms(clock.now())))
            self.replayed = self._replay(self._journal.commands(from_byte))
            undo.pop_all()

    @property
    def directory(self) -> Path:
        """Where the journal is."""
        return self._settings.data_dir

    @property
    def state(self) -> VenueState:
        """The records, for reading."""
        return self.exchange.state

    def now_ms(self) -> int:
        """The venue's time; it never runs backwards unless it is skewed on purpose."""
        return to_unix_ms(self._clock.now()) + self.skew_ms

    def accepted_at(self) -> int:
        """The time of the next command: not before the time of the last one.

        A skew is added to it and not remembered: once it is over, time goes on where it was.
        """
        self._last_ms = max(self._last_ms, to_unix_ms(self._clock.now()))
        return self._last_ms + self.skew_ms

    def execute(self, command: Command) -> tuple[VenueEvent, ...]:
        """Accept a command for good, or refuse it.

        What is due by the command's time happens before it. The command is in the journal when this
        returns, and on the disk when `settled` returns; who listens hears of it only then. The
        house's own moves are written without waiting for the disk: nobody was promised them, and
        they precede in the file every order that saw their effect.

        Raises:
            VenueRefusal: nothing was written and nothing changed.
        """
        self.pass_time(command.at_ms)
        return self._execute(command)

    def pass_time(self, at_ms: int) -> None:
        """Do what is due by a time."""
        if self.state.is_due(at_ms):
            self._execute(PassTime(at_ms))

    def overhear(self, listener: Callable[[Sequence[VenueEvent]], None]) -> None:
        """Hand a listener the events of whatever is executed from now on, at once."""
        self._listeners.append(listener)

    @contextmanager
    def overhearing(self) -> Iterator[list[VenueEvent]]:
        """Collect the events of what is executed meanwhile."""
        heard: list[VenueEvent] = []
        self._listeners.append(heard.extend)
        try:
            yield heard
        finally:
            self._listeners.remove(heard.extend)

    async def settled(self) -> None:
        """Wait until every accepted command is on the disk."""
        if not self._commit.is_settled:
            await self._commit.wait()

    def _execute(self, command: Command) -> tuple[VenueEvent, ...]:
        self.exchange.check(command)
        self._write(command)
        events = self._applied(command)
        for listener in self._listeners:
            listener(events)
        if not isinstance(command, HOUSE_MOVES):
            self._unheard.append((self._commit.asked + 1, events))
            self._commit.request()
        elif self._unheard:
            self._unheard.append((self._commit.asked, events))
        else:
            self._publish(events)
        self._since_checkpoint += 1
        if self._since_checkpoint >= self._settings.checkpoint_every:
            self.save_checkpoint()
        return events

    def _heard(self, settled: int) -> None:
        """Publish the events of commands that are on the disk, in order."""
        while self._unheard and self._unheard[0][0] <= settled:
            self._publish(self._unheard.popleft()[1])

    def _write(self, command: Command) -> None:
        """Write a command to the journal; one that did not take it whole takes no other."""
        try:
            self._journal.append(command)
        except (OSError, JournalDamaged) as error:
            self._failed(error)
            raise

    def _applied(self, command: Command) -> tuple[VenueEvent, ...]:
        """Apply a command that is in the journal; if that fails, the whole venue has failed."""
        try:
            return self.exchange.apply(command)
        except Exception as error:
            self._failed(error)
            raise

    def save_checkpoint(self) -> None:
        """Write an image of the state, so that the next start need not replay what led to it."""
        self._journal.flush()
        image = checkpoint.image_of(
            self.exchange, journal_bytes=self._journal.size_bytes(), last_ms=self._last_ms
        )
        checkpoint.write(self._settings.data_dir, image)
        self._since_checkpoint = 0

    def close(self) -> None:
        """Put all on the disk and close the journal."""
        if not self._commit.is_settled:
            self._commit.now()
        self._journal.close()

    def _restored(self, wanted: Genesis) -> tuple[Exchange, int]:
        """The exchange as of the last image, or new, and the journal's byte to go on from."""
        stored = self._journal.genesis()
        if stored is None:
            self._journal.append(wanted)
            self._journal.flush()
            return Exchange(wanted), 0
        require_same(self._journal.path, stored, wanted)
        image = checkpoint.read(self._settings.data_dir)
        if image is None:
            return Exchange(stored), 0
        self._last_ms = image.last_ms
        return checkpoint.exchange_from(stored, image), image.journal_bytes

    def _replay(self, commands: Iterable[Command]) -> int:
        count = 0
        for command in commands:
            count += 1
            try:
                self.exchange.check(command)
                self.exchange.apply(command)
            except VenueRefusal as refusal:
                raise JournalDamaged(
                    f"{self._journal.path}: command {count} was accepted once but is refused now "
                    f"({refusal}); the journal was written by another version or changed by hand"
                ) from refusal
            self._last_ms = max(self._last_ms, command.at_ms)
        self._since_checkpoint = count
        return count
