"""Standing settlement instructions: where a party is paid, by version, and when a change counts.

One operator enters, another one signs exactly what was entered, version number included. A change
cools off and waits for a call back (`standing_rules`); whoever pays keeps the number of the version
that was in force, so a later change never redirects a payment.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from banks.payee import canonical_payee
from chain.addressing import canonical_address
from chain.evm.addresses import parse_address
from kernel.errors import BadInput, Refused
from ledger.opaque import require_token
from registry.asset_chains import list_chains_of
from registry.authority import signing_bytes
from registry.errors import SamePerson
from registry.model import BITCOIN, Operator, Role
from registry.people import require_operator
from registry.queries import get_asset, get_party
from trading.terms import store
from trading.terms.errors import NoStandingInstruction, NoSuchVersion, TermsChanged
from trading.terms.model import CallBack, Rail, StandingInstruction
from trading.terms.signing import record_change, record_step, require_two
from trading.terms.standing_rules import earliest_start, in_force, is_denied

ENTITY: Final = "standing-instruction"
ENTERED_BY: Final = (Role.TREASURER, Role.OPERATIONS)
CALLED_BY: Final = (Role.TREASURER, Role.OPERATIONS, Role.APPROVER)


def standing_instruction_bytes(
    party: str,
    asset: str,
    rail: Rail,
    destination: str,
    *,
    effective_from: date,
    version: int = 1,
) -> bytes:
    """Return what the second operator signs to accept *version* of where a party is paid."""
    return signing_bytes(
        # The verb keeps the name of the room where it was first.
        "settlement.standing_instruction",
        {
            "party": party,
            "asset": asset,
            "rail": str(rail),
            "destination": destination,
            "effective_from": effective_from.isoformat(),
            "version": version,
        },
    )


async def instruct(
    conn: AsyncConnection,
    *,
    party: str,
    asset: str,
    rail: Rail,
    destination: str,
    effective_from: date,
    by: Operator,
    approver: Operator,
    signature: bytes,
    now: datetime,
) -> int:
    """Write where *party* is to be paid in *asset* and return the version.

    The newest version's destination again: nothing is written. The first version is in force from
    its day on; a later one not before it has cooled off and was confirmed by a call back.

    Args:
        conn: the caller's transaction.
        party, asset: codes.
        rail: on chain or through a bank; by book nobody is paid out.
        destination: in the one spelling of the rail: `canonical_destination`.
        effective_from: the first day (UTC); at least `standing_rules.earliest_start`.
        by: who enters it: the treasury or operations.
        approver: who signs it: the treasury or an approver.
        signature: the approver's, over `standing_instruction_bytes` of the next version.
        now: the time.

    Raises:
        BadAddress: the destination is no address of the rail.
        BadInput: it is no account at a bank, or not in its one spelling.
        Refused: it would begin too early, the people may not, or the signature is of another
            version.
        TermsChanged: somebody else changed it meanwhile.
    """
    await get_party(conn, party)
    await get_asset(conn, asset)
    await _require_destination(conn, asset, rail, destination)
    known = await store.list_standing_instructions(conn, parties=[party], asset=asset, rail=rail)
    if known and known[-1].destination == destination and not is_denied(known[-1]):
        return known[-1].version
    version = known[-1].version + 1 if known else 1
    _require_start(effective_from, version, now)
    payload = standing_instruction_bytes(
        party, asset, rail, destination, effective_from=effective_from, version=version
    )
    people = await require_two(conn, by, approver, payload, signature, entered_by=ENTERED_BY)
    item = StandingInstruction(
        party=party,
        asset=asset,
        rail=rail,
        version=version,
        destination=destination,
        effective_from=effective_from,
        needs_call_back=version > 1,
        proposed_by=people.first.code,
        approved_by=people.second.code,
        at=now,
    )
    if not await store.insert_standing_instruction(conn, item):
        raise TermsChanged(f"where {party} is paid in {asset} was changed just now")
    details = {
        "destination": destination,
        "standing_version": version,
        "effective_from": effective_from.isoformat(),
        "needs_call_back": item.needs_call_back,
    }
    await record_change(conn, ENTITY, _key(item), "StandingInstructionSet", details, people, now)
    return version


async def canonical_destination(
    conn: AsyncConnection, asset: str, rail: Rail, destination: str
) -> str:
    """Return where somebody is paid in the one spelling that is signed, kept and compared.

    An address in EIP-55; an address of the asset's own chain of Bitcoin; ``IBAN|BIC|name``.

    Raises:
        BadAddress: it is no address of the rail, or one of another network.
        BadInput: it is no account at a bank.
        Refused: nobody is paid out by *rail*, or the asset is on no chain of it.
    """
    match rail:
        case Rail.EVM:
            return parse_address(destination)
        case Rail.BANK:
            return canonical_payee(destination)
        case Rail.BITCOIN:
            for chain in await list_chains_of(conn, asset):
                if chain.kind == BITCOIN:
                    return canonical_address(
                        destination, kind=chain.kind, network_id=chain.network_id
                    )
            raise Refused(
                f"{asset} is on no chain of kind {BITCOIN}", remedy="Register it there first"
            )
        case Rail.BOOK:
            raise Refused(
                f"nobody is paid out by {rail}",
                remedy="A book settlement credits the party's account",
            )


async def _require_destination(
    conn: AsyncConnection, asset: str, rail: Rail, destination: str
) -> None:
    right = await canonical_destination(conn, asset, rail, destination)
    if right != destination:
        raise BadInput(
            f"{destination!r} is not how this destination is written",
            remedy=f"Write it as it is kept: {right}",
        )


async def record_call_back(
    conn: AsyncConnection,
    *,
    party: str,
    asset: str,
    rail: Rail,
    version: int,
    confirmed: bool,
    reference: str,
    by: Operator,
    now: datetime,
) -> StandingInstruction:
    """Record what the party said about a version when it was called back; for good.

    Confirmed, the version counts once it has cooled off. Denied, it never counts, and if it was in
    force it no longer is. The same again: nothing happens.

    Args:
        conn: the caller's transaction.
        party, asset, rail, version: which version.
        confirmed: the party asked for it.
        reference: where the note of the call is kept; an opaque token.
        by: who called: not the one who entered the version.
        now: the time.

    Raises:
        SamePerson: whoever entered it wants to confirm it too.
        NoSuchVersion: there is none of that number.
        TermsChanged: another answer is on record.
    """
    require_token(reference, "reference of a call back")
    if not reference:
        raise BadInput("a call back has no reference", remedy="Say where the note of it is kept")
    operator = await require_operator(conn, by, *CALLED_BY)
    item = await get_version(conn, party, asset, rail, version)
    if confirmed and operator.code == item.proposed_by:
        raise SamePerson(
            f"{operator.code} entered the change and cannot confirm it",
            remedy="Let somebody else call the party back",
        )
    outcome = CallBack(confirmed=confirmed, reference=reference, by=operator.code, at=now)
    if not await store.insert_call_back(conn, item, outcome):
        return await _require_same(conn, item, outcome)
    details = {
        "standing_version": version,
        "confirmed": confirmed,
        "reference": reference,
    }
    name = "StandingInstructionConfirmed" if confirmed else "StandingInstructionDenied"
    await record_step(conn, ENTITY, _key(item), name, details, operator.code, "called back", now)
    return await get_version(conn, party, asset, rail, version)


async def find_standing_instruction(
    conn: AsyncConnection, party: str, asset: str, rail: Rail, *, on: date
) -> StandingInstruction | None:
    """Return the version that is in force on a day (UTC), if there is one."""
    versions = await store.list_standing_instructions(conn, parties=[party], asset=asset, rail=rail)
    return in_force(versions, on)


async def get_standing_instruction(
    conn: AsyncConnection, party: str, asset: str, rail: Rail, *, on: date
) -> StandingInstruction:
    """Return the version that is in force on a day (UTC).

    Raises:
        NoStandingInstruction: there is none, or the only one waits.
    """
    found = await find_standing_instruction(conn, party, asset, rail, on=on)
    if found is None:
        raise NoStandingInstruction(
            f"{party} has no standing instruction for {asset} on {rail} that is in force",
            remedy="Propose one and have a second person approve it; a change is called back first",
        )
    return found


async def get_version(
    conn: AsyncConnection, party: str, asset: str, rail: Rail, version: int
) -> StandingInstruction:
    """Return a version, in force or not.

    Raises:
        NoSuchVersion: there is none of that number.
    """
    for item in await store.list_standing_instructions(
        conn, parties=[party], asset=asset, rail=rail
    ):
        if item.version == version:
            return item
    raise NoSuchVersion(
        f"{party} has no version {version} of where it is paid in {asset} on {rail}"
    )


async def next_version(conn: AsyncConnection, party: str, asset: str, rail: Rail) -> int:
    """Return the number that the next version will have, for whoever signs it."""
    known = await store.list_standing_instructions(conn, parties=[party], asset=asset, rail=rail)
    return known[-1].version + 1 if known else 1


async def list_standing_instructions(
    conn: AsyncConnection, party: str | None = None
) -> list[StandingInstruction]:
    """Return every version of a party, or of all, by party, asset, rail and version."""
    return await store.list_standing_instructions(conn, parties=None if party is None else [party])


def _require_start(effective_from: date, version: int, now: datetime) -> None:
    earliest = earliest_start(version, now.date())
    if effective_from < earliest:
        raise Refused(
            f"version {version} cannot be in force on {effective_from.isoformat()}",
            remedy=f"The first day possible is {earliest.isoformat()}",
        )


async def _require_same(
    conn: AsyncConnection, item: StandingInstruction, wanted: CallBack
) -> StandingInstruction:
    now = await get_version(conn, item.party, item.asset, item.rail, item.version)
    if now.call_back is None or now.call_back.confirmed is not wanted.confirmed:
        raise TermsChanged(f"another answer about version {item.version} is on record")
    return now


def _key(item: StandingInstruction) -> str:
    return f"{item.party}/{item.asset}/{item.rail}"
