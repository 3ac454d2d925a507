"""Errors of recordings.

::

    BadInput
    └── NotARecording            the file is something else, or of a version that is not known here
    Refused
    ├── RecordingDamaged         what is in the file is not what was written
    │   └── RecordingUnfinished  it has no end: it is being written, or its writer was killed
    ├── RecorderRunning          another process records this venue into this directory
    └── QueryRefused             a statement that does more than look
"""

from __future__ import annotations

from kernel.errors import BadInput, Refused


class NotARecording(BadInput):
    """The file is no recording, or of a version that is not known here."""


class RecordingDamaged(Refused):
    """What is in the file is not what was written; the message says from which byte on."""


class RecordingUnfinished(RecordingDamaged):
    """The file has no end: it is being written, or whoever wrote it was killed."""


class RecorderRunning(Refused):
    """Another process records this venue into this directory."""


class QueryRefused(Refused):
    """A statement that does more than look, or that cannot be run."""
