"""The service: a program with a key of its own.

It approves what a rule of the policy allows, and signs what processes of the house have frozen, so that
the signer stops as well. It opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.auto_approval import approve_allowed
from custody.freezes import Freeze, sign_automatic
from custody.payout_model import Payout
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import Refused
from registry.model import Operator
from registry.queries import get_operator

log = structlog.get_logger("service")


@dataclass(frozen=True, slots=True, repr=False)
class Service:
    """An operator that is no person: its Ed25519 public key (32 bytes), and what signs with it."""

    code: str
    public_key: bytes
    sign: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceWorker:
    """Signs freezes and approves, a batch under each signature; every turn is safe to take again."""

    engine: AsyncEngine
    clock: Clock
    book: int
    service: Service

    async def turn(self) -> list[Payout]:
        """Sign what is frozen, then approve what waits; return what is approved now.

        Raises:
            Refused: the key is not the one that is enrolled.
        """
        for item in await transact(self.engine, self._sign_freezes):
            log.warning("a freeze of the house goes to the signer", scope=str(item.scope))
        return await transact(self.engine, self._approve)

    async def _sign_freezes(self, conn: AsyncConnection) -> list[Freeze]:
        operator = await self._operator(conn)
        return await sign_automatic(conn, by=operator, sign=self.service.sign, now=self.clock.now())

    async def _approve(self, conn: AsyncConnection) -> list[Payout]:
        operator = await self._operator(conn)
        return await approve_allowed(
            conn, by=operator, sign=self.service.sign, book=self.book, now=self.clock.now()
        )

    async def _operator(self, conn: AsyncConnection) -> Operator:
        operator = await get_operator(conn, self.service.code)
        if operator.public_key != self.service.public_key:
            raise Refused(
                f"the key of service {operator.code} is not the one that is enrolled for it",
                remedy="Name the key that was enrolled, or enrol this one",
            )
        return operator
