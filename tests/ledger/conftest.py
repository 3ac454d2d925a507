"""Books for tests of the ledger."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.scenarios import play

BUSY = """
own custody:client client
a  move  custody:client  client:a  100 ETH   -> created
b  move  custody:client  client:b  50 ETH    -> created
h  hold  client:a  in-flight:evm  30 ETH  purpose=payout          -> created
i  hold  client:a  in-flight:evm  10 ETH  purpose=quote timeout=5s -> created
j  hold  custody:client  client:b  5 ETH  purpose=deposit         -> created
k  hold  custody:client  client:b  7 ETH  purpose=deposit         -> created

p  post  h  20 ETH                            -> created
v  void  j                                    -> created
x  move  client:b  client:a  51 ETH           -> exceeds_credits
m  move  equity:capital  bank:main  1000 USD  reference=r-1  -> created
r  reverse  b                                 -> created
@ +5s
freeze client:b ETH
n  move  bank:main  client:a  10 USD          -> created
"""


@pytest.fixture
async def busy(engine: AsyncEngine) -> AsyncEngine:
    """An engine whose book 1 has met every kind of record."""
    assert await play(engine, BUSY) == BUSY
    return engine
