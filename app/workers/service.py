"""The service: a program with a key of its own that approves what a rule of the policy allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.auto_approval import approve_allowed
from custody.payout_model import Payout
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import Refused
from registry.queries import get_operator


@dataclass(frozen=True, slots=True, repr=False)
class Service:
    """An operator that is no person: its Ed25519 public key (32 bytes), and what signs with it."""

    code: str
    public_key: bytes
    sign: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceWorker:
    """Approves, a batch under each signature; every turn is safe to take again."""

    engine: AsyncEngine
    clock: Clock
    book: int
    service: Service

    async def turn(self) -> list[Payout]:
        """Approve what waits for the service; return what is approved now.

        Raises:
            Refused: the key is not the one that is enrolled.
        """
        return await transact(self.engine, self._approve)

    async def _approve(self, conn: AsyncConnection) -> list[Payout]:
        operator = await get_operator(conn, self.service.code)
        if operator.public_key != self.service.public_key:
            raise Refused(
                f"the key of service {operator.code} is not the one that is enrolled for it",
                remedy="Name the key that was enrolled, or enrol this one",
            )
        return await approve_allowed(
            conn, by=operator, sign=self.service.sign, book=self.book, now=self.clock.now()
        )
