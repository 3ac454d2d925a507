"""What people do about proposals: carry out those of a cold wallet, or dismiss them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.evm.transactions import erc20_transfer_data
from custody.errors import NotPossible
from custody.rebalance import store
from custody.rebalance.model import Proposal, ProposalState
from custody.rebalance.worker import end_proposal
from kernel.errors import BadInput
from kernel.money import rescale
from registry.authority import require_role
from registry.model import Role
from registry.queries import get_asset, get_chain, get_chain_asset, get_operator

MAY_SAY: Final = (Role.TREASURER, Role.APPROVER, Role.ADMIN)
_HASH: Final = re.compile(r"0x[0-9a-f]{64}")

get_proposal = store.get_proposal
list_proposals = store.list_proposals


async def hand_over(conn: AsyncConnection, proposal_id: UUID) -> dict[str, Any]:
    """Return what people have to sign for a transfer out of a cold wallet, as plain values.

    Nonce and fees are theirs to fill in, with the device that has the key.

    Raises:
        NotPossible: it is not a proposal that people carry out, or no longer.
    """
    proposal = await store.get_proposal(conn, proposal_id)
    _require_by_hand(proposal)
    move = proposal.transfer
    chain = await get_chain(conn, proposal.chain)
    token = await get_chain_asset(conn, proposal.chain, move.asset)
    scale = (await get_asset(conn, move.asset)).scale
    amount = rescale(move.amount, scale, token.decimals)
    native = token.contract is None
    data = b"" if native else erc20_transfer_data(move.to_address, amount)
    return {
        "proposal": str(proposal.id),
        "chain_id": chain.network_id,
        "from": move.address,
        "to": move.to_address if native else token.contract,
        "value": str(amount if native else 0),
        "data": "0x" + data.hex(),
        "pays": move.to_address,
        "asset": move.asset,
        "amount": str(move.amount),
    }


async def carried_out(
    conn: AsyncConnection, proposal_id: UUID, *, tx_hash: str, by: str, now: datetime
) -> Proposal:
    """Write that people moved the coins, with the transaction that did it.

    The books follow the chain, not this: the block with the transaction moves the coins there.
    """
    require_role(await get_operator(conn, by), *MAY_SAY)
    if not _HASH.fullmatch(tx_hash):
        raise BadInput(f"{tx_hash!r} is not the hash of a transaction")
    proposal = await store.get_proposal(conn, proposal_id, lock=True)
    _require_by_hand(proposal)
    return await end_proposal(conn, proposal, ProposalState.CARRIED_OUT, now, tx_hash, by=by)


async def dismiss(
    conn: AsyncConnection, proposal_id: UUID, *, reason: str, by: str, now: datetime
) -> Proposal:
    """Say that a proposal shall not be."""
    require_role(await get_operator(conn, by), *MAY_SAY)
    if not reason.strip():
        raise BadInput("dismissing a proposal needs a reason")
    proposal = await store.get_proposal(conn, proposal_id, lock=True)
    if proposal.state is not ProposalState.PROPOSED:
        raise NotPossible(
            f"proposal {proposal.id} is {proposal.state}",
            remedy="What became a payout is cancelled or rejected as one",
        )
    return await end_proposal(conn, proposal, ProposalState.DISMISSED, now, reason, by=by)


def _require_by_hand(proposal: Proposal) -> None:
    if not proposal.transfer.by_hand or proposal.state is not ProposalState.PROPOSED:
        raise NotPossible(
            f"proposal {proposal.id} is {proposal.state}, and"
            f" {'' if proposal.transfer.by_hand else 'not '}for people to carry out"
        )
