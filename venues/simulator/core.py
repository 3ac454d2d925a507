"""One door to the venue's state: check, write to the journal, apply, publish."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from venues.simulator.commands import Command, StepMaker, VenueEvent
from venues.simulator.errors import JournalDamaged, VenueRefusal
from venues.simulator.exchange import Exchange
from venues.simulator.journal import open_journal
from venues.simulator.settings import VenueSimulatorSettings
from venues.simulator.state import VenueState

Publisher = Callable[[Sequence[VenueEvent]], None]


class VenueCore:
    """The exchange with its journal and its clock. Single-threaded; nothing here waits."""

    def __init__(
        self, settings: VenueSimulatorSettings, clock_ms: Callable[[], int], publish: Publisher
    ) -> None:
        self._clock_ms = clock_ms
        self._publish = publish
        self._last_ms = 0
        self.skew_ms = 0
        journal, genesis, commands = open_journal(
            settings.data_dir, settings.genesis(clock_ms()), fsync=settings.fsync
        )
        self._journal = journal
        with ExitStack() as undo:
            undo.callback(journal.close)
            self.exchange = Exchange(genesis)
            self.replayed = self._replay(commands)
            undo.pop_all()

    @property
    def state(self) -> VenueState:
        """The records, for reading."""
        return self.exchange.state

    def now_ms(self) -> int:
        """The venue's time; it never runs backwards unless it is skewed on purpose."""
        return self._clock_ms() + self.skew_ms

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
        events = self.exchange.apply(command)
        self._publish(events)
        return events

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

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
        return count
