"""A digest of what a book answered, to tell whether two runs were the same to the last event.

It is the SHA-256 of one line of text per event: its name and its fields in their order, integers
as decimals and members of enums by name. So it is the same on every run, machine and Python, and
another one as soon as an event has another name, field or value.
"""

import hashlib
from collections.abc import Iterable
from enum import Enum

from msgspec.structs import astuple

from matching.model import Event


def line_of(event: Event) -> str:
    """The line of an event, as `Accepted 7`."""
    return " ".join([type(event).__name__, *map(_word_of, astuple(event))])


class EventHash:
    """Grows with the events of a run."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, events: Iterable[Event]) -> None:
        """Take further events in. Where one call ends and the next begins makes no difference."""
        self._hash.update("".join([f"{line_of(event)}\n" for event in events]).encode())

    def hexdigest(self) -> str:
        """The digest of all events so far, 64 hexadecimal digits."""
        return self._hash.hexdigest()


def event_hash(events: Iterable[Event]) -> str:
    """The digest of these events."""
    digest = EventHash()
    digest.add(events)
    return digest.hexdigest()


def _word_of(value: object) -> str:
    return value.name if isinstance(value, Enum) else str(value)
