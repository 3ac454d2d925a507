"""The forms of netting side by side, and an honest line where the wider ones add nothing."""

from __future__ import annotations

from collections.abc import Sequence

from settlement.netting.cycles import clear_cycles
from settlement.netting.exact import BUILT_IN
from settlement.netting.model import Clearing, Edge, Forms, Solvers
from settlement.netting.multilateral import multilateral


def compare_forms(edges: Sequence[Edge], *, solvers: Solvers = BUILT_IN) -> Forms:
    """Return what moves under each form, for the edges of one asset.

    Raises:
        ValueError: as `settlement.netting.cycles.clear_cycles`.
    """
    return forms_of(edges, clear_cycles(edges, solvers=solvers))


def forms_of(edges: Sequence[Edge], clearing: Clearing) -> Forms:
    """Return what moves under each form, where the circles are cleared already."""
    pairs = net_pairs(edges)
    bilateral = sum(map(abs, pairs.values()))
    return Forms(
        gross=clearing.gross,
        bilateral=bilateral,
        multilateral=multilateral(edges)[1],
        cleared=clearing.cleared,
        note=_note(list(pairs), adds=bilateral - clearing.remaining),
    )


def net_pairs(edges: Sequence[Edge]) -> dict[tuple[str, str], int]:
    """Return what the first of each pair owes the second, below zero if it is the other way round.

    The pairs are in the order of names within each, and of first appearance among them.
    """
    pairs: dict[tuple[str, str], int] = {}
    known = pairs.get
    for edge in edges:
        debtor, creditor = edge.debtor, edge.creditor
        if debtor < creditor:
            pair = (debtor, creditor)
            pairs[pair] = known(pair, 0) + edge.amount
        else:
            pair = (creditor, debtor)
            pairs[pair] = known(pair, 0) - edge.amount
    return pairs


def _note(pairs: Sequence[tuple[str, str]], *, adds: int) -> str:
    if not pairs or adds:
        return ""
    hubs = set(pairs[0]).intersection(*pairs)
    if hubs:
        return (
            f"every obligation has {min(hubs)} on one side: a star. Clearing circles adds nothing to "
            f"bilateral netting, and a hub would move the same payments; its figure counts once "
            f"what comes in and goes out again"
        )
    return "clearing circles adds nothing to bilateral netting: no circle is longer than a pair"
