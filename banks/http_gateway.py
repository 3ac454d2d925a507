"""A bank's door on HTTP: a file is put there under its name, and the same again is known.

``PUT <url>/orders/<name>``: 202 taken, 200 taken before, 409 other bytes under that name, 400 cannot be
read. Every other answer, and none, says nothing. `banks.simulator` answers so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import aiohttp

from banks.submission import Outcome, Submission

TIMEOUT_S: Final = 20.0
DETAIL_BYTES_MAX: Final = 300
OUTCOMES: Final[Mapping[int, Outcome]] = {
    200: Outcome.TAKEN,
    202: Outcome.TAKEN,
    400: Outcome.REFUSED,
    409: Outcome.REFUSED,
}


@dataclass(frozen=True, slots=True)
class HttpGateway:
    """The door at *url*; a session for each file, for there are few."""

    url: str
    timeout_s: float = TIMEOUT_S

    async def submit(self, name: str, content: bytes) -> Submission:
        """Put the file there; whatever goes wrong on the way leaves its outcome unknown."""
        limit = aiohttp.ClientTimeout(total=self.timeout_s)
        target = f"{self.url.rstrip('/')}/orders/{quote(name, safe='')}"
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.put(target, data=content, allow_redirects=False) as answer,
            ):
                said = (await answer.content.read(DETAIL_BYTES_MAX)).decode(errors="replace")
                outcome = OUTCOMES.get(answer.status, Outcome.UNKNOWN)
                return Submission(
                    outcome, "" if outcome is Outcome.TAKEN else _words(answer.status, said)
                )
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Submission(Outcome.UNKNOWN, f"no answer: {type(error).__name__} {error}")


def _words(status: int, said: str) -> str:
    return f"the bank's door answered {status}: {' '.join(said.split())}"
