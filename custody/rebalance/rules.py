"""Bands, sweeps and consolidations as two people make them: proposed by one, put in force by another."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.errors import NotPossible
from custody.payout_model import ControlState
from custody.rebalance import store
from custody.rebalance.document import parse_rules, to_document
from custody.rebalance.model import RULES_STATES, ConsolidationRule, RebalanceRules, RulesRow
from kernel.errors import BadInput, Refused
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from registry.authority import require_role, signing_bytes, verify_signature
from registry.model import BITCOIN, Role
from registry.queries import get_chain, get_chain_asset, get_operator, get_wallet, list_assets
from registry.queries import list_wallets as list_registered

ENTITY: Final = "rebalance_rules"
APPROVE_VERB: Final = "rebalance_rules.approve"
DECIDERS: Final = (Role.TREASURER, Role.ADMIN)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

get_rules = store.get_rules
find_active = store.find_active
list_rules = store.list_rules


async def propose_rules(
    conn: AsyncConnection, text: str, *, chains: list[str], by: str, now: datetime
) -> RulesRow:
    """Propose the next version of the rules from a file; those in force stay in force.

    Args:
        conn: the caller's transaction.
        text: see `custody.rebalance.document`.
        chains: whose wallets the rules may name.
        by: a treasurer or an administrator.
        now: the time.

    Raises:
        BadInput: names the rule and the field.
        Refused: the operator may not, or a rule names a wallet and asset that do not go together.
    """
    require_role(await get_operator(conn, by), *DECIDERS)
    natives: dict[str, str] = {}
    for chain in chains:
        native = (await get_chain(conn, chain)).native_asset
        natives |= {wallet.code: native for wallet in await list_registered(conn, chain)}
    assets = {asset.code: asset for asset in await list_assets(conn)}
    version = await store.next_rules_version(conn)
    rules = parse_rules(text, version, assets, natives)
    await _require_places(conn, rules)
    await store.insert_rules(conn, rules, by=by, now=now)
    row = await store.get_rules(conn, version)
    await _tell(conn, row, None, by, now)
    return row


def rules_bytes(row: RulesRow) -> bytes:
    """Return what the second person signs."""
    fields = {"version": row.rules.version, "rules": to_document(row.rules)}
    return signing_bytes(APPROVE_VERB, fields)


async def approve_rules(
    conn: AsyncConnection, version: int, *, by: str, signature: bytes, now: datetime
) -> RulesRow:
    """Put a proposed version in force in place of the one before.

    Raises:
        Refused: the same operator proposed it, the signature is wrong, or it was decided.
    """
    row = await store.get_rules(conn, version, lock=True)
    operator = await get_operator(conn, by)
    require_role(operator, *DECIDERS)
    _require_open(row)
    if row.proposed_by == by:
        raise Refused(f"{by} proposed these rules", remedy="Ask another treasurer or administrator")
    verify_signature(operator, rules_bytes(row), signature)
    before = await store.find_active(conn, lock=True)
    if before is not None:
        await _write(conn, before, ControlState.REVOKED, by, now)
    return await _write(
        conn, row, ControlState.ACTIVE, by, now, approved_by=by, signature=signature
    )


async def reject_rules(conn: AsyncConnection, version: int, *, by: str, now: datetime) -> RulesRow:
    """Say no to a proposed version."""
    row = await store.get_rules(conn, version, lock=True)
    require_role(await get_operator(conn, by), *DECIDERS)
    _require_open(row)
    return await _write(conn, row, ControlState.REJECTED, by, now)


def _require_open(row: RulesRow) -> None:
    if row.state is not ControlState.PROPOSED:
        raise NotPossible(f"rebalancing rules {row.rules.version} are {row.state} already")


async def _require_places(conn: AsyncConnection, rules: RebalanceRules) -> None:
    """Refuse a wallet that is not registered, or an asset that its chain has not."""
    named = {(band.wallet, band.asset) for band in rules.bands}
    named |= {(rule.wallet, rule.asset) for rule in rules.sweeps}
    named |= {(rule.wallet, rule.asset) for rule in rules.consolidations}
    for wallet, asset in named:
        chain = (await get_wallet(conn, wallet)).chain
        await get_chain_asset(conn, chain, asset)
    for rule in rules.sweeps:
        place = await get_chain(conn, (await get_wallet(conn, rule.wallet)).chain)
        native = place.native_asset
        if place.kind == BITCOIN:
            raise BadInput(
                f"coins of {place.code} are spent wherever they lie: nothing is swept there",
                where=f"sweep of {rule.asset} in {rule.wallet}",
                remedy="Write a consolidation instead",
            )
        if rule.asset == native and rule.minimum < rule.fee_max:
            raise BadInput(
                f"a sweep of {rule.minimum} may cost {rule.fee_max}",
                where=f"sweep of {rule.asset} in {rule.wallet}",
                remedy="Sweep no less than it may cost",
            )
    for item in rules.consolidations:
        await _require_coins(conn, item)


async def _require_coins(conn: AsyncConnection, rule: ConsolidationRule) -> None:
    """Refuse a consolidation on a chain that has accounts."""
    chain = await get_chain(conn, (await get_wallet(conn, rule.wallet)).chain)
    if chain.kind != BITCOIN:
        raise BadInput(
            f"{chain.code} has accounts: there are no coins to make one of",
            where=f"consolidation of {rule.asset} in {rule.wallet}",
            remedy="Write a sweep instead",
        )


async def _write(
    conn: AsyncConnection,
    row: RulesRow,
    to: ControlState,
    by: str,
    now: datetime,
    **values: Any,
) -> RulesRow:
    RULES_STATES.require(row.state, to)
    await store.write_rules_state(conn, row.rules.version, to, **values)
    written = await store.get_rules(conn, row.rules.version)
    await _tell(conn, written, row.state, by, now)
    return written


async def _tell(
    conn: AsyncConnection, row: RulesRow, before: ControlState | None, by: str, now: datetime
) -> None:
    # The entity's id must not depend on the time of the event: all versions of it share one life.
    entity = derive_id(EPOCH, ENTITY, row.rules.version)
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=entity,
        version=await next_version(conn, ENTITY, entity),
        name=f"RebalanceRules{row.state.capitalize()}",
        at=now,
        actor=by,
        from_state=before,
        to_state=row.state,
        payload={"version": row.rules.version, "rules": to_document(row.rules)},
    )
    await record(conn, [event])
