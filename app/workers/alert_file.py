"""What the house file says of alerts: ``[alerts]``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from app.workers.sections import require_number, require_text, values_of
from kernel.errors import BadInput
from kernel.redaction import KNOWN

ALERTS: Final = "alerts"
SECRET_BYTES_MAX: Final = 1_000
_DEFAULTS: Final[dict[str, Any]] = {
    "seconds": 60,
    "smtp": "",
    "sender": "causeway@localhost",
    "secret": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSection:
    """How people are reached.

    Attributes:
        pause: between two looks at everything.
        smtp: host and port of the mail server; None: there is none.
        sender: the address that mail comes from.
        secret: the file whose bytes sign web hooks; None: they are not signed.
    """

    pause: timedelta = timedelta(minutes=1)
    smtp: tuple[str, int] | None = None
    sender: str = "causeway@localhost"
    secret: Path | None = None

    def read_secret(self) -> bytes | None:
        """Return what signs web hooks.

        Raises:
            BadInput: the file cannot be read, or is empty.
        """
        if self.secret is None:
            return None
        try:
            found = self.secret.read_bytes()[: SECRET_BYTES_MAX + 1].strip()
        except OSError as error:
            raise BadInput(f"the secret of web hooks cannot be read: {error}") from error
        if not 0 < len(found) <= SECRET_BYTES_MAX:
            raise BadInput(
                f"a secret has 1 to {SECRET_BYTES_MAX} bytes", where=f"{ALERTS}: {self.secret}"
            )
        KNOWN.remember(found.decode(errors="replace"))
        return found


def parse_alerts(table: object, path: Path) -> AlertSection:
    """Check the ``[alerts]`` that was read from *path*; None: there is none, and nobody is mailed.

    Raises:
        BadInput: names the key that is unknown or of another kind.
    """
    where = f"{path}: [{ALERTS}]"
    values = values_of({} if table is None else table, _DEFAULTS, frozenset(), where)
    require_number("seconds", values["seconds"], (1, 3_600), where)
    for key in ("smtp", "sender", "secret"):
        require_text(key, values[key], where, is_required=key == "sender")
    return AlertSection(
        pause=timedelta(seconds=values["seconds"]),
        smtp=_server(values["smtp"], where) if values["smtp"] else None,
        sender=values["sender"],
        secret=path.absolute().parent / values["secret"] if values["secret"] else None,
    )


def _server(text: str, where: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise BadInput(f"smtp is {text!r}", where=where, remedy='Write "mail.example.com:25"')
    return host, int(port)
