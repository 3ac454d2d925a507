"""The registered tokens, read again: one that changed is frozen until people have looked.

The registry says how many decimals a token has; what its code was is pinned when it is first read.
Other decimals, other code, or another implementation behind its proxy make it another token: a freeze
of the asset then stops taking it in and paying it out. Each finding freezes once: who opens the asset
again knows of it, and only something new freezes it anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.errors import UnreadableAnswer
from chain.tokens import TokenFacts, TokenGateway, differences, read_token
from custody.control_messages import ScopeKind
from custody.freezes import Scope, close_automatically
from custody.reconciliation_tables import token_pin
from kernel.db import transact
from registry.model import ChainAsset
from registry.queries import list_chain_assets

ACTOR: Final = "system:token-watch"
TROUBLE_LENGTH_MAX: Final = 400
GONE: Final = "there is no contract at its address any more"


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """What was found about one token; *trouble* is empty where it is as it was."""

    asset: str
    contract: str
    trouble: str
    frozen: bool


async def watch_tokens(
    engine: AsyncEngine, gateway: TokenGateway, chain: str, *, now: datetime
) -> list[TokenCheck]:
    """Read every registered token of a chain and freeze those that are not what they were.

    Args:
        engine: the database, as the runtime role.
        gateway: the node of *chain*.
        chain: the chain's code.
        now: the time.

    Raises:
        NodeTrouble: the node cannot be relied on now; what was read before that stands.
    """
    checks = []
    for token in await transact(engine, lambda conn: list_chain_assets(conn, chain)):
        if token.contract is None:
            continue
        facts: TokenFacts | None = None
        try:
            facts = await read_token(gateway, token.contract)
        except UnreadableAnswer as error:
            if "no contract" not in error.what:
                raise
        checks.append(await transact(engine, partial(_compare, token=token, facts=facts, now=now)))
    return checks


async def _compare(
    conn: AsyncConnection, *, token: ChainAsset, facts: TokenFacts | None, now: datetime
) -> TokenCheck:
    """Compare with what is pinned, pin what is read for the first time, and freeze on news."""
    assert token.contract is not None
    known = token_pin.c
    row = (
        await conn.execute(
            select(token_pin)
            .where(known.chain == token.chain, known.contract == token.contract)
            .with_for_update()
        )
    ).one_or_none()
    if facts is None:
        trouble = GONE
    else:
        pinned = replace(facts, decimals=token.decimals)
        if row is not None:
            pinned = replace(pinned, code=row.code_hash, implementation=row.implementation)
        trouble = "; ".join(differences(pinned, facts))[:TROUBLE_LENGTH_MAX]
    is_news = bool(trouble) and (row is None or row.trouble != trouble)
    await _write(conn, token, facts, trouble, now)
    if is_news:
        scope = Scope(ScopeKind.ASSET, token.asset)
        reason = f"token {token.contract} on {token.chain}: {trouble}"
        await close_automatically(conn, scope, by=ACTOR, reason=reason, now=now)
    return TokenCheck(token.asset, token.contract, trouble, is_news)


async def _write(
    conn: AsyncConnection,
    token: ChainAsset,
    facts: TokenFacts | None,
    trouble: str,
    now: datetime,
) -> None:
    """Pin the code at the first reading; afterwards only when it was read and what was found."""
    first = insert(token_pin).values(
        chain=token.chain,
        contract=token.contract,
        asset=token.asset,
        decimals=token.decimals,
        code_hash="" if facts is None else facts.code,
        implementation="" if facts is None else facts.implementation,
        pinned_at=now,
        read_at=now,
        trouble=trouble,
    )
    again = first.on_conflict_do_update(
        index_elements=["chain", "contract"], set_={"read_at": now, "trouble": trouble}
    )
    await conn.execute(again)
