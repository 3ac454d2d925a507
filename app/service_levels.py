"""Service levels: how late, how uncertain and how far from proven the house is, read from its rows.

Nothing is counted in memory that a row already says, so that a replica that has just started tells
the same as one that has run for weeks. Each level is one short query, in a transaction of its own,
with a time limit; one that cannot be read is told as unreadable, and hides no other.

Seconds and counts are what they are; amounts are in whole units of their asset, as Prometheus has
nothing but floating point: they are for looking at, and no posting ever reads them.
"""

# Every piece of a query is a constant of this module.
# ruff: noqa: S608

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import TextClause, bindparam, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import Timestamp, transact
from kernel.errors import CausewayError

STATEMENT_TIMEOUT_MS: Final = 2_000
"""What a single level may cost the database."""
READ_WITHIN_S: Final = 6.0
"""What all of them may take: less than Prometheus waits for a scrape (10 s unless told otherwise), so that a
server that says nothing hides the levels only."""
ROWS_MAX: Final = 1_000
"""Label sets of one level; a house with more of them is not one."""
RECENT_MAX: Final = 5_000
"""Newest events among which the last hour's are looked for."""

_RECENT: Final = f"""
WITH recent AS (
    SELECT * FROM (
        SELECT aggregateid, type, payload, recorded_at FROM kernel.outbox
        ORDER BY position DESC LIMIT {RECENT_MAX}
    ) AS newest
    WHERE recorded_at > :now - INTERVAL '1 hour'
)"""

_QUANTILES: Final = "(VALUES ('0.5', 0.5), ('0.99', 0.99)) AS quantile(name, fraction)"

_LIVE: Final = (
    "state NOT IN ('confirmed', 'failed_on_chain', 'refused', 'rejected', 'cancelled', 'expired')"
)
"""As the partial index ``custody.ix_payout_live`` has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What one query tells.

    Attributes:
        name: of the level, for the figure that says whether it could be read.
        labels: the first columns of its rows, as many as there are labels.
        gauges: the columns after them, in order: name of the metric and what it is.
        sql: reads ``:now``, the clock of the house.
    """

    name: str
    labels: tuple[str, ...]
    gauges: tuple[tuple[str, str], ...]
    sql: str


LEVELS: Final = (
    Level(
        name="outbox",
        labels=(),
        gauges=(
            ("causeway_outbox_undelivered", "Events that no relay has handed on, at most 100000"),
            ("causeway_outbox_lag_seconds", "Age of the oldest event that was not handed on"),
        ),
        sql="""
SELECT (SELECT count(*) FROM (
            SELECT 1 FROM kernel.outbox WHERE delivered_at IS NULL LIMIT 100000) AS waiting),
       coalesce((SELECT extract(epoch FROM :now - recorded_at) FROM kernel.outbox
                 WHERE delivered_at IS NULL ORDER BY position LIMIT 1), 0)""",
    ),
    Level(
        name="jobs",
        labels=(),
        gauges=(
            ("causeway_jobs_dead", "Scheduled jobs that were given up and wait for a person"),
            ("causeway_job_lag_seconds", "How long the oldest due job has been waiting"),
        ),
        sql="""
SELECT (SELECT count(*) FROM kernel.job WHERE state = 'dead'),
       coalesce((SELECT extract(epoch FROM :now - min(run_after)) FROM kernel.job
                 WHERE finished_at IS NULL AND run_after <= :now), 0)""",
    ),
    Level(
        name="deposits",
        labels=("chain", "state"),
        gauges=(
            ("causeway_deposits_open", "Deposits in a state that is not their last"),
            ("causeway_deposit_waiting_seconds", "Since the oldest of them was seen first"),
        ),
        sql="""
SELECT chain.code, state.name, found.count, coalesce(found.age, 0)
FROM registry.chain AS chain
CROSS JOIN unnest(ARRAY['included', 'confirmed', 'screened', 'held', 'unattributed',
                        'quarantined']) AS state(name)
CROSS JOIN LATERAL (
    SELECT count(*) AS count, extract(epoch FROM :now - min(first_seen_at)) AS age
    FROM custody.deposit WHERE deposit.chain = chain.code AND deposit.state = state.name
) AS found""",
    ),
    Level(
        name="credits",
        labels=("chain", "quantile"),
        gauges=(
            (
                "causeway_deposit_credit_seconds",
                "From a deposit's detection to its credit, of those credited in the last hour",
            ),
        ),
        sql=f"""{_RECENT}
SELECT deposit.chain, quantile.name,
       percentile_disc(quantile.fraction) WITHIN GROUP (
           ORDER BY extract(epoch FROM recent.recorded_at - deposit.first_seen_at))
FROM recent JOIN custody.deposit ON deposit.id = CAST(recent.aggregateid AS uuid)
CROSS JOIN {_QUANTILES}
WHERE recent.type = 'DepositCredited'
GROUP BY deposit.chain, quantile.name, quantile.fraction""",
    ),
    Level(
        name="payouts",
        labels=("rail", "state"),
        gauges=(
            ("causeway_payouts_live", "Payouts that have not ended"),
            ("causeway_payout_age_seconds", "Since the oldest of them was asked for"),
        ),
        sql=f"""
SELECT rail, state, count(*), extract(epoch FROM :now - min(created_at))
FROM custody.payout WHERE {_LIVE} GROUP BY rail, state""",
    ),
    Level(
        name="unsent",
        labels=("rail",),
        gauges=(
            (
                "causeway_payout_unsent_seconds",
                "Since the approval of the payout that has waited longest for being sent",
            ),
        ),
        sql=f"""
SELECT rail, extract(epoch FROM :now - min(approved.at))
FROM (
    SELECT id, rail FROM custody.payout
    WHERE {_LIVE} AND state IN ('approved', 'allocated') ORDER BY created_at LIMIT {ROWS_MAX}
) AS oldest
CROSS JOIN LATERAL (
    SELECT max(at) AS at FROM kernel.history
    WHERE entity_type = 'payout' AND entity_id = oldest.id AND to_state = 'approved'
) AS approved
WHERE approved.at IS NOT NULL GROUP BY rail""",
    ),
    Level(
        name="sends",
        labels=("rail", "quantile"),
        gauges=(
            (
                "causeway_payout_send_seconds",
                "From a payout's approval to its broadcast, of those that left in the last hour",
            ),
        ),
        sql=f"""{_RECENT}, sent AS (
    SELECT CAST(payload ->> 'payout_id' AS uuid) AS id, recorded_at AS at FROM recent
    WHERE type = 'AttemptBroadcast' AND payload ->> 'from' = 'signed'
    UNION ALL
    SELECT CAST(aggregateid AS uuid), recorded_at FROM recent
    WHERE type = 'PayoutSigned' AND payload ->> 'from' = 'allocated'
), times AS (
    SELECT payout.rail, extract(epoch FROM max(sent.at) - approved.at) AS seconds
    FROM sent JOIN custody.payout ON payout.id = sent.id
    CROSS JOIN LATERAL (
        SELECT max(at) AS at FROM kernel.history
        WHERE entity_type = 'payout' AND entity_id = sent.id AND to_state = 'approved'
    ) AS approved
    WHERE approved.at IS NOT NULL GROUP BY payout.id, payout.rail, approved.at
)
SELECT rail, quantile.name,
       percentile_disc(quantile.fraction) WITHIN GROUP (ORDER BY times.seconds)
FROM times CROSS JOIN {_QUANTILES}
GROUP BY rail, quantile.name, quantile.fraction""",
    ),
    Level(
        name="unknown outcomes",
        labels=("kind",),
        gauges=(
            ("causeway_outcomes_unknown", "Acts on the outside whose outcome nobody knows yet"),
            ("causeway_outcome_unknown_seconds", "Since the oldest of them was done"),
        ),
        sql=f"""
SELECT kind.name, count(open.since), coalesce(extract(epoch FROM :now - min(open.since)), 0)
FROM unnest(ARRAY['order', 'payout', 'spend', 'bank file', 'venue withdrawal']) AS kind(name)
LEFT JOIN (
    SELECT 'order' AS kind, coalesce(signed_at, created_at) AS since FROM venues.venue_order
    WHERE state IN ('submitting', 'unknown', 'escalated')
    UNION ALL
    SELECT 'payout', attempt.signed_at FROM custody.payout
    JOIN custody.payout_attempt AS attempt ON attempt.payout_id = payout.id
    WHERE payout.{_LIVE} AND attempt.state = 'ambiguous'
    UNION ALL
    SELECT 'spend', attempt.signed_at FROM custody.spend
    JOIN custody.spend_attempt AS attempt ON attempt.spend_id = spend.id
    WHERE spend.state IN ('signed', 'cancelling', 'security_hold') AND attempt.state = 'ambiguous'
    UNION ALL
    SELECT 'bank file', released_at FROM custody.payment_file WHERE state = 'unknown'
    UNION ALL
    SELECT 'venue withdrawal', signed_at FROM custody.venue_withdrawal
    WHERE state IN ('submitting', 'unknown', 'escalated')
) AS open ON open.kind = kind.name
GROUP BY kind.name""",
    ),
    Level(
        name="books",
        labels=("book",),
        gauges=(
            ("causeway_journal_records", "Records of the journal"),
            (
                "causeway_books_proof_age_seconds",
                "Since the books were last proven, or opened where they never were",
            ),
            (
                "causeway_books_proof_failures",
                "Failed attempts at proofs that are due since the last that succeeded",
            ),
        ),
        sql="""
SELECT head.book, head.sequence,
       extract(epoch FROM :now - coalesce(last.finished_at, head.opened_at)),
       coalesce((
           SELECT max(attempts) FROM (
               SELECT attempts, state, scheduled_for FROM kernel.job
               WHERE job.name = 'books.proof/' || head.book
               ORDER BY scheduled_for DESC LIMIT 100) AS newest
           WHERE state <> 'done' AND scheduled_for > coalesce(last.scheduled_for, '-infinity')), 0)
FROM ledger.head CROSS JOIN LATERAL (
    SELECT max(finished_at) AS finished_at, max(scheduled_for) AS scheduled_for FROM (
        SELECT finished_at, scheduled_for, state FROM kernel.job
        WHERE job.name = 'books.proof/' || head.book
        ORDER BY scheduled_for DESC LIMIT 100) AS newest
    WHERE state = 'done') AS last""",
    ),
    Level(
        name="reserves",
        labels=("book", "asset"),
        gauges=(
            (
                "causeway_reserve_gap",
                "What chains, venues and banks have more than the books; below 0: less",
            ),
        ),
        sql="""
SELECT head.book, asset.code,
       coalesce(sum(break.amount), 0) / power(CAST(10 AS numeric), asset.scale)
FROM ledger.head CROSS JOIN registry.asset
LEFT JOIN reporting.recon_break AS break
    ON break.book = head.book AND break.asset = asset.code
    AND break.state IN ('open', 'assigned')
GROUP BY head.book, asset.code, asset.scale""",
    ),
    Level(
        name="breaks",
        labels=("book", "place_kind"),
        gauges=(
            ("causeway_recon_breaks", "Standing differences between the books and the outside"),
            ("causeway_recon_break_seconds", "Since the oldest of them was found"),
        ),
        sql="""
SELECT head.book, kind.name, count(break.id),
       coalesce(extract(epoch FROM :now - min(break.opened_at)), 0)
FROM ledger.head CROSS JOIN unnest(ARRAY['chain', 'venue', 'bank']) AS kind(name)
LEFT JOIN reporting.recon_break AS break
    ON break.book = head.book AND break.place_kind = kind.name
    AND break.state IN ('open', 'assigned')
GROUP BY head.book, kind.name""",
    ),
    Level(
        name="differences",
        labels=("chain",),
        gauges=(
            (
                "causeway_chain_differences",
                "Addresses and assets of which books and chain do not say the same",
            ),
        ),
        sql="""
SELECT chain.code, count(difference.id) FROM registry.chain
LEFT JOIN custody.difference ON difference.chain = chain.code AND difference.state = 'open'
GROUP BY chain.code""",
    ),
    Level(
        name="client money",
        labels=("book", "asset"),
        gauges=(
            ("causeway_client_money_holdings", "What is held for clients"),
            ("causeway_client_money_liabilities", "What is owed to clients"),
            ("causeway_client_money_short", "1 while less is held than is owed"),
        ),
        sql="""
SELECT money.book, money.asset,
       money.holdings / power(CAST(10 AS numeric), asset.scale),
       money.liabilities / power(CAST(10 AS numeric), asset.scale),
       CASE money.state WHEN 'short' THEN 1 ELSE 0 END
FROM reporting.client_money AS money JOIN registry.asset ON asset.code = money.asset""",
    ),
    Level(
        name="client money watch",
        labels=("book",),
        gauges=(
            (
                "causeway_client_money_lag_blocks",
                "Blocks of the journal that the watch over client money has not seen",
            ),
        ),
        sql="""
SELECT head.book, head.height - coalesce(watch.height, 0)
FROM ledger.head LEFT JOIN reporting.client_money_watch AS watch ON watch.book = head.book""",
    ),
    Level(
        name="hedges",
        labels=("desk", "asset"),
        gauges=(
            ("causeway_hedge_need", "What is still to be bought or sold, without its sign"),
            ("causeway_hedge_look_seconds", "Since the line was last looked at"),
            (
                "causeway_hedge_blocked",
                "1 while something other than time keeps the line from being hedged",
            ),
        ),
        sql="""
SELECT hedge.desk, hedge.asset,
       coalesce(abs(hedge.look_need), 0) / power(CAST(10 AS numeric), asset.scale),
       extract(epoch FROM :now - coalesce(hedge.looked_at, hedge.created_at)),
       CASE WHEN hedge.look_need <> 0 AND hedge.look_verdict IN (
           'book_unusable', 'too_expensive', 'no_funds', 'unsettled', 'limited', 'halted',
           'refused', 'venue_down') THEN 1 ELSE 0 END
FROM trading.hedge JOIN registry.asset ON asset.code = hedge.asset""",
    ),
    Level(
        name="orders",
        labels=("venue", "account"),
        gauges=(
            ("causeway_orders_open", "Orders that are at the venue or may be"),
            ("causeway_order_open_seconds", "Since the oldest of them was intended"),
        ),
        sql="""
SELECT venue, account, count(*), extract(epoch FROM :now - min(created_at))
FROM venues.venue_order
WHERE state IN ('acked', 'escalated', 'intent', 'partially_filled', 'submitting', 'unknown')
GROUP BY venue, account""",
    ),
    Level(
        name="fills",
        labels=("venue", "account"),
        gauges=(
            ("causeway_fills_unbooked", "Trades that are not posted"),
            ("causeway_fill_unbooked_seconds", "Since the oldest of them was recorded"),
        ),
        sql="""
SELECT venue, account, count(*), extract(epoch FROM :now - min(recorded_at))
FROM venues.fill WHERE booked_at IS NULL GROUP BY venue, account""",
    ),
    Level(
        name="venues",
        labels=("venue", "account"),
        gauges=(
            ("causeway_venue_breaker_open", "1 while orders to the account are stopped"),
            ("causeway_venue_breaker_seconds", "Since the breaker is in its state"),
        ),
        sql="""
SELECT venue, account, CASE state WHEN 'closed' THEN 0 ELSE 1 END,
       extract(epoch FROM :now - since)
FROM risk.venue_health""",
    ),
    Level(
        name="nonces",
        labels=("chain", "sender"),
        gauges=(
            ("causeway_nonces_live", "Nonces that a payment keeps"),
            ("causeway_nonce_gaps", "Nonces given back that a payment waits behind"),
        ),
        sql="""
SELECT chain, sender, count(*) FILTER (WHERE state = 'live'),
       count(*) FILTER (WHERE state = 'released' AND nonce < last_live)
FROM (
    SELECT chain, sender, nonce, state,
           max(nonce) FILTER (WHERE state = 'live') OVER (PARTITION BY chain, sender) AS last_live
    FROM custody.payout_nonce WHERE state <> 'spent'
) AS open
GROUP BY chain, sender HAVING count(*) FILTER (WHERE state = 'live') > 0""",
    ),
    Level(
        name="signer",
        labels=(),
        gauges=(
            ("causeway_signer_refusals", "Payouts that the signer refused in the last hour"),
            ("causeway_control_queued", "Control messages that the signer was not told"),
            ("causeway_control_queued_seconds", "Since the oldest of them was signed"),
        ),
        sql=f"""{_RECENT}
SELECT (SELECT count(*) FROM recent
        WHERE type = 'PayoutRejected' AND payload ->> 'reason' LIKE 'the signer refused%'),
       count(*), coalesce(extract(epoch FROM :now - min(queued_at)), 0)
FROM custody.control_message WHERE state = 'queued'""",
    ),
    Level(
        name="freezes",
        labels=("kind",),
        gauges=(("causeway_freezes_closed", "Switches that are closed"),),
        sql="""
SELECT kind.name, count(switch.id)
FROM unnest(ARRAY['global', 'chain', 'asset', 'wallet', 'client']) AS kind(name)
LEFT JOIN custody.freeze AS switch ON switch.kind = kind.name AND switch.state = 'closed'
GROUP BY kind.name""",
    ),
    Level(
        name="chains",
        labels=("chain",),
        gauges=(
            ("causeway_chain_halted", "1 while the chain is not followed"),
            ("causeway_chain_height", "The highest block in the books"),
            ("causeway_chain_block_seconds", "Age of that block by its own time"),
            ("causeway_chain_disputed_seconds", "Since the providers disagree; 0: they do not"),
        ),
        sql="""
SELECT cursor.chain, CASE following.state WHEN 'halted' THEN 1 ELSE 0 END, cursor.height,
       extract(epoch FROM :now - block.time),
       coalesce(extract(epoch FROM :now - agreement.disputed_since), 0)
FROM chain.cursor
JOIN chain.block ON block.chain = cursor.chain AND block.hash = cursor.hash
LEFT JOIN chain.following ON following.chain = cursor.chain
LEFT JOIN chain.agreement ON agreement.chain = cursor.chain""",
    ),
    Level(
        name="bank files",
        labels=(),
        gauges=(
            ("causeway_bank_files_quarantined", "Files of banks that could not be believed"),
            ("causeway_payment_files_held", "Payment files that a bank's door did not take"),
        ),
        sql="""
SELECT (SELECT count(*) FROM custody.bank_file WHERE state = 'quarantined'),
       (SELECT count(*) FROM custody.payment_file WHERE state = 'held')""",
    ),
    Level(
        name="switches",
        labels=("desk",),
        gauges=(("causeway_desk_halted", "1 while the desk may not trade"),),
        sql="SELECT desk, CASE state WHEN 'active' THEN 0 ELSE 1 END FROM risk.desk_control",
    ),
    Level(
        name="alerts",
        labels=("kind",),
        gauges=(("causeway_house_alerts", "Standing alerts of the house (docs/alerts.md)"),),
        sql="SELECT kind, count(*) FROM reporting.alert WHERE state <> 'cleared' GROUP BY kind",
    ),
    Level(
        name="snapshots",
        labels=(),
        gauges=(
            (
                "causeway_xmin_age_transactions",
                "Transactions since the oldest snapshot that a session of the server still reads",
            ),
        ),
        sql="""
SELECT CAST(CAST(pg_snapshot_xmax(now.seen) AS text) AS numeric)
       - CAST(CAST(pg_snapshot_xmin(now.seen) AS text) AS numeric)
FROM (SELECT pg_current_snapshot() AS seen) AS now""",
    ),
)

READABLE: Final = "causeway_service_level_readable"
XMIN_AGE: Final = "causeway_xmin_age_seconds"
HEDGE_DELAY: Final = "causeway_hedge_delay_seconds"
_XMIN_NOW: Final = "SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS numeric)"


@dataclass(slots=True)
class Watch:
    """Since when things are as they are, for what no row has the time of.

    It sees what is there when it is asked, so its ages are right to one scrape.
    """

    _since: dict[tuple[str, ...], tuple[object, datetime]] = field(default_factory=dict)

    def age_s(self, key: tuple[str, ...], value: object, now: datetime) -> float:
        """Return for how long *key* has had this *value*; 0 when it is seen first."""
        before = self._since.get(key)
        if before is None or before[0] != value:
            self._since[key] = (value, now)
            return 0.0
        return max(0.0, (now - before[1]) / timedelta(seconds=1))

    def forget(self, key: tuple[str, ...]) -> None:
        """Begin anew with *key*."""
        self._since.pop(key, None)


@dataclass(slots=True, kw_only=True)
class ServiceLevels:
    """Reads the levels, all of them at each call of `read`.

    Attributes:
        engine: with a connection of its own: levels are read also while the workers' are all busy.
        within_s: all of them; what was not read by then could not be read.
    """

    engine: AsyncEngine
    clock: Clock
    levels: Sequence[Level] = LEVELS
    within_s: float = READ_WITHIN_S
    _watch: Watch = field(default_factory=Watch)

    async def read(self) -> list[Metric]:
        """Return every level as Prometheus has it, and which could not be read."""
        found: list[Metric] = []
        readable = GaugeMetricFamily(READABLE, "1 where the level could be read", labels=("level",))
        now, until_s = self.clock.now(), asyncio.get_running_loop().time() + self.within_s
        for level in self.levels:
            rows = await self._rows(level.sql, now, until_s)
            readable.add_metric((level.name,), int(rows is not None))
            found += self._families(level, rows or (), now)
        return [*found, await self._xmin(now, until_s), readable]

    async def _rows(
        self, sql: str, now: datetime, until_s: float
    ) -> Sequence[Sequence[Any]] | None:
        if asyncio.get_running_loop().time() >= until_s:
            return None

        async def work(conn: AsyncConnection) -> Sequence[Sequence[Any]]:
            await conn.exec_driver_sql(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
            result = await conn.execute(_statement(sql, now))
            return result.fetchmany(ROWS_MAX)

        try:
            async with asyncio.timeout_at(until_s):
                return await transact(self.engine, work, attempts_max=1)
        except (DBAPIError, CausewayError, TimeoutError):
            return None

    def _families(
        self, level: Level, rows: Sequence[Sequence[Any]], now: datetime
    ) -> list[GaugeMetricFamily]:
        width = len(level.labels)
        families = [
            GaugeMetricFamily(name, purpose, labels=level.labels) for name, purpose in level.gauges
        ]
        for row in rows:
            labels = tuple(str(value) for value in row[:width])
            for family, value in zip(families, row[width:], strict=True):
                family.add_metric(labels, float(value))
        if level.name == "hedges":
            families.append(self._hedge_delay(rows, now))
        return families

    def _hedge_delay(self, rows: Sequence[Sequence[Any]], now: datetime) -> GaugeMetricFamily:
        """Return for how long each line has needed something without a break."""
        family = GaugeMetricFamily(
            HEDGE_DELAY, "Since the line needs what it did not get", labels=("desk", "asset")
        )
        for desk, asset, need, *_ in rows:
            key = (HEDGE_DELAY, desk, asset)
            if need:
                family.add_metric((desk, asset), self._watch.age_s(key, value=True, now=now))
            else:
                self._watch.forget(key)
                family.add_metric((desk, asset), 0.0)
        return family

    async def _xmin(self, now: datetime, until_s: float) -> GaugeMetricFamily:
        """Return for how long the oldest snapshot has not moved on.

        While nobody writes it does not move either, so it counts only beside
        ``causeway_xmin_age_transactions``. What holds it back, only a superuser is shown.
        """
        family = GaugeMetricFamily(XMIN_AGE, "Since the oldest snapshot has not moved on")
        for (xmin,) in await self._rows(_XMIN_NOW, now, until_s) or ():
            family.add_metric((), self._watch.age_s((XMIN_AGE,), xmin, now))
        return family


def _statement(sql: str, now: datetime) -> TextClause:
    statement = text(sql)
    # With its type: PostgreSQL cannot tell what is subtracted from what.
    return statement.bindparams(bindparam("now", now, Timestamp)) if ":now" in sql else statement


def metric_names(levels: Sequence[Level] = LEVELS) -> frozenset[str]:
    """Return every name that `ServiceLevels.read` tells."""
    own = {name for level in levels for name, _ in level.gauges}
    return frozenset({*own, READABLE, XMIN_AGE, HEDGE_DELAY})
