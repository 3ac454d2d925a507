"""Questions about events: what is committed is told, in the order of its key, and says the state."""

from __future__ import annotations

from typing import Final

from app.oracles.model import Check
from ledger.points import fill

_HISTORY: Final = "SELECT count(*) FROM kernel.history"
_OUTBOX: Final = "SELECT count(*) FROM kernel.outbox"

# Nothing that a row of the outbox says of itself is believed: which event it tells is known by the order of
# positions, which within one entity is the order of commits.
_TOLD: Final = Check(
    counted=_HISTORY,
    faults="""
WITH happened AS (
    SELECT entity_type AS type, entity_id::text AS id, version, name,
           row_number() OVER (PARTITION BY entity_type, entity_id ORDER BY version) AS number
      FROM kernel.history
), told AS (
    SELECT aggregatetype AS type, aggregateid AS id, type AS name, position,
           row_number() OVER (PARTITION BY aggregatetype, aggregateid ORDER BY position) AS number
      FROM kernel.outbox
)
SELECT format('kernel.history %s %s', coalesce(h.type, t.type), coalesce(h.id, t.id)),
       CASE WHEN t.name IS NULL
            THEN format('its event %s, %s, is not in the outbox', h.version, h.name)
            WHEN h.name IS NULL
            THEN format('the outbox tells of %s at %s, and it never happened', t.name, t.position)
            ELSE format('its event %s is %s, and the outbox tells of %s at %s', h.version, h.name,
                        t.name, t.position) END
  FROM happened h FULL JOIN told t ON (t.type, t.id, t.number) = (h.type, h.id, h.number)
 WHERE t.name IS DISTINCT FROM h.name
 ORDER BY 1, h.version
""",
)

_WITHOUT_GAPS: Final = Check(
    counted="SELECT count(*) FROM (SELECT DISTINCT entity_type, entity_id FROM kernel.history) e",
    faults="""
SELECT format('kernel.history %s %s', entity_type, entity_id),
       format('%s events, the last is number %s', count(*), max(version))
  FROM kernel.history GROUP BY entity_type, entity_id
HAVING count(*) <> max(version) OR min(version) <> 1
 ORDER BY 1
""",
)

# Of one entity nothing is delivered before what came before it. Between entities there is no order.
_IN_KEY_ORDER: Final = Check(
    counted=_OUTBOX,
    faults="""
SELECT format('kernel.outbox %s', position),
       format('%s of %s %s is delivered, and what came before it is not', type, aggregatetype,
              aggregateid)
  FROM (SELECT position, type, aggregatetype, aggregateid, delivered_at,
               bool_or(delivered_at IS NULL) OVER (
                   PARTITION BY aggregatetype, aggregateid ORDER BY position
                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS waits
          FROM kernel.outbox) told
 WHERE delivered_at IS NOT NULL AND waits
 ORDER BY position
""",
)

_DELIVERED: Final = Check(
    at_rest=True,
    counted=_OUTBOX,
    faults="""
SELECT format('kernel.outbox %s', position),
       format('%s of %s %s is not delivered', type, aggregatetype, aggregateid)
  FROM kernel.outbox WHERE delivered_at IS NULL ORDER BY position
""",
)

OUTBOX: Final = (_TOLD, _WITHOUT_GAPS, _IN_KEY_ORDER, _DELIVERED)

_MACHINES: Final = (
    ("deposit", "custody.deposit"),
    ("receipt", "custody.receipt"),
    ("payout", "custody.payout"),
    ("spend", "custody.spend"),
    ("foreign_spend", "custody.foreign_spend"),
    ("payment_file", "custody.payment_file"),
    ("venue_withdrawal", "custody.venue_withdrawal"),
    ("bank-receipt", "custody.bank_receipt"),
    ("venue-order", "venues.venue_order"),
    ("deal", "trading.deal"),
    ("quote", "trading.quote"),
    ("hand-fill", "trading.hand_fill"),
    ("confirmation", "trading.confirmation"),
    ("obligation", "settlement.obligation"),
    ("settlement-run", "settlement.run"),
    ("settlement-instruction", "settlement.instruction"),
    ("book-move", "books.book_move"),
    ("manual-journal", "books.manual_journal"),
)
"""Entity of the history, and the table of its machine."""


def _says_the_state(entity: str, table: str) -> Check:
    parts = {"entity": entity, "table": table}
    return Check(
        counted=fill("SELECT count(*) FROM <table>", **parts),
        faults=fill(
            """
SELECT '<table> ' || m.id,
       format('it is %s, and the last event says %s', m.state, coalesce(h.to_state, 'nothing'))
  FROM <table> m
  LEFT JOIN LATERAL (
       SELECT to_state FROM kernel.history
        WHERE entity_type = '<entity>' AND entity_id = m.id AND to_state IS NOT NULL
        ORDER BY version DESC LIMIT 1) h ON true
 WHERE h.to_state IS DISTINCT FROM m.state
 ORDER BY 1
""",
            **parts,
        ),
    )


STATES: Final = tuple(_says_the_state(*machine) for machine in _MACHINES)
