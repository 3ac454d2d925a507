"""One door to the venue's state: check, write to the journal, apply, publish."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from kernel.clock import Clock, to_unix_ms
from venues.simulator import checkpoint
from venues.simulator.commands import Command, StepMaker, VenueEvent
from venues.simulator.errors import JournalDamaged, VenueRefusal
from venues.simulator.exchange import Exchange
from venues.simulator.journal import FILE_NAME, Journal, require_same
from venues.simulator.model import Genesis
from venues.simulator.settings import VenueSimulatorSettings
from venues.simulator.state import VenueState

Publisher = Callable[[Sequence[VenueEvent]], None]


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
        self.skew_ms = 0
        self._journal = Journal(settings.data_dir / FILE_NAME, fsync=settings.fsync)
        with ExitStack() as undo:
            undo.callback(self._journal.close)
            self.exchange, from_byte = self._restored(settings.genesis(to_unix_ms(clock.now())))
            self.replayed = self._replay(self._journal.commands(from_byte))
            undo.pop_all()

    @property
    def state(self) -> VenueState:
        """The records, for reading."""
        return self.exchange.state

    def now_ms(self) -> int:
        """The venue's time; it never runs backwards unless it is skewed on purpose."""
        return to_unix_ms(self._clock.now()) + self.skew_ms

    def accepted_at(self) -> int:
        """The time of the next command: not before the time of the last one."""
        self._last_ms = max(self._last_ms, self.now_ms())
        return self._last_ms

    def execute(self, command: Command) -> tuple[VenueEvent, ...]:
        """Accept a command for good, or refuse it.

        When this returns the command is on the disk. The market maker's own moves are written
        without waiting for the disk: nobody was promised them, and they precede in the file every
        order that saw their effect.

        Raises:
            VenueRefusal: nothing was written and nothing changed.
        """
        self.exchange.check(command)
        durable = not isinstance(command, StepMaker)
        self._journal.append(command, durable=durable)
        events = self._applied(command)
        self._publish(events)
        self._since_checkpoint += 1
        if self._since_checkpoint >= self._settings.checkpoint_every:
            self.save_checkpoint()
        return events

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
        """Close the journal."""
        self._journal.close()

    def _restored(self, wanted: Genesis) -> tuple[Exchange, int]:
        """The exchange as of the last image, or new, and the journal's byte to go on from."""
        stored = self._journal.genesis()
        if stored is None:
            self._journal.append(wanted, durable=True)
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
