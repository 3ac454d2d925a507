"""Errors of the local components.

::

    OutsideUnavailable
    └── LocalError
        ├── PostgresMissing        no PostgreSQL binaries for this machine
        ├── PostgresNotStarted     the server did not become ready
        ├── DataDirectoryUnusable  an existing data directory cannot be used as it is
        ├── HomeInUse              another live process owns the folder
        ├── ProcessNotStarted      a child did not report that it is ready
        └── MigrationNotDone       the schema could not be brought to the wanted revision
"""

from __future__ import annotations

from kernel.errors import OutsideUnavailable


class LocalError(OutsideUnavailable):
    """A component on this machine cannot be used."""


class PostgresMissing(LocalError):
    """No PostgreSQL binaries were found for this machine."""


class PostgresNotStarted(LocalError):
    """The PostgreSQL server did not become ready."""


class DataDirectoryUnusable(LocalError):
    """An existing data directory cannot be used as it is."""


class HomeInUse(LocalError):
    """Another live process owns the folder."""


class ProcessNotStarted(LocalError):
    """A child process did not report that it is ready."""


class MigrationNotDone(LocalError):
    """The schema could not be brought to the wanted revision."""
