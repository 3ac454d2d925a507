"""The demo's result: as text for people, as data for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from app.demo.stage import Happening
from reporting.gather import Examination

WHERE_NEXT: Final = (
    ("make test", "run every test of the house, on real components"),
    ("causeway demo --keep", "leave it running, and look around with the commands below"),
    ("causeway ledger trial-balance", "what finance asks"),
    ("causeway ledger statement client:birch ETH", "one client's account, line by line"),
    ("docs/architecture.md", "why it is built this way"),
)


@dataclass(frozen=True, slots=True)
class Result:
    """What the demo did and found."""

    timeline: Sequence[Happening]
    examination: Examination
    evm: str
    seconds: float
    notices: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Return the result as data."""
        found = self.examination
        return {
            "held": found.held,
            "seconds": round(self.seconds, 1),
            "evm": self.evm,
            "notices": list(self.notices),
            "proofs": [{"name": p.name, "held": p.held, "detail": p.detail} for p in found.proofs],
            "timeline": [line.to_json() for line in self.timeline],
            "trial_balance": [
                {
                    "account": row.path,
                    "asset": row.asset,
                    "debits": str(row.debits),
                    "credits": str(row.credits),
                    "balance": str(row.balance),
                }
                for row in found.trial_balance
            ],
            "reconciliation": [
                {
                    "place": row.place,
                    "asset": row.asset,
                    "ledger": str(row.ledger),
                    "outside": str(row.outside),
                    "difference": str(row.difference),
                    "evidence": row.evidence,
                }
                for row in found.reconciliation
            ],
        }


def print_result(console: Console, result: Result) -> None:
    """Print the report: time line, trial balance, reconciliation, proofs, where to look next."""
    console.print(_timeline(result.timeline))
    console.print(_trial_balance(result.examination))
    console.print(_reconciliation(result.examination))
    console.print(_holds(result.examination))
    console.print(_proofs(result.examination))
    verdict = "[green]every proof held[/]" if result.examination.held else "[red]a proof FAILED[/]"
    console.print(f"{verdict}, {result.seconds:.0f} s, chain: {result.evm}", highlight=False)
    console.print()
    console.print("Where to look next", style="bold")
    for command, what in WHERE_NEXT:
        console.print(f"  {command:<45} {what}", highlight=False)


def _timeline(lines: Sequence[Happening]) -> Table:
    table = _table("What happened")
    table.add_column("", style="bold")
    table.add_column("what", overflow="fold", ratio=1)
    chapter = ""
    for line in lines:
        table.add_row("" if line.chapter == chapter else line.chapter, line.what)
        chapter = line.chapter
    return table


def _trial_balance(found: Examination) -> Table:
    table = _table("Trial balance")
    for column in ("account", "balance", "pending in", "pending out"):
        table.add_column(column, justify="left" if column == "account" else "right")
    quiet = 0
    for row in found.trial_balance:
        asset = found.assets[row.asset]
        debit_side = row.side == "debit"
        incoming = row.debits_pending if debit_side else row.credits_pending
        leaving = row.credits_pending if debit_side else row.debits_pending
        if not (row.balance or incoming or leaving):
            quiet += 1
        else:
            table.add_row(
                row.path,
                asset.format(row.balance),
                asset.format(incoming, code=False) if incoming else "",
                asset.format(leaving, code=False) if leaving else "",
            )
    table.caption = f"and {quiet} accounts at zero"
    return table


def _reconciliation(found: Examination) -> Table:
    table = _table("Reconciliation")
    for column in ("place", "ledger", "outside", "difference", "evidence"):
        table.add_column(column, justify="left" if column in {"place", "evidence"} else "right")
    for row in found.reconciliation:
        asset = found.assets[row.asset]
        if row.ledger or row.outside:
            table.add_row(
                row.place,
                asset.format(row.ledger),
                asset.format(row.outside, code=False),
                asset.format(row.difference, code=False),
                row.evidence,
            )
    return table


def _holds(found: Examination) -> Table:
    table = _table("Open holds")
    for column in ("purpose", "from", "to", "amount"):
        table.add_column(column, justify="right" if column == "amount" else "left")
    for hold in found.holds:
        amount = found.assets[hold.asset].format(hold.amount)
        table.add_row(hold.purpose, hold.debit, hold.credit, amount)
    return table


def _proofs(found: Examination) -> Table:
    table = _table("Proofs")
    for column in ("proof", "held", "detail"):
        table.add_column(column, overflow="fold")
    for proof in found.proofs:
        verdict = "[green]yes[/]" if proof.held else "[red]NO[/]"
        table.add_row(proof.name, verdict, proof.detail)
    return table


def _table(title: str) -> Table:
    return Table(
        title=title,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
    )
