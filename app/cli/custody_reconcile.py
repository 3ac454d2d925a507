"""``causeway custody reconcile``, ``reconciliations``, ``differences``: books against the chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    CHAIN_DEFAULT,
    AsJson,
    Book,
    Chain,
    Money,
    chain_nodes,
    chain_providers,
    clock,
    emit,
    node_url,
    on_database,
    read,
    run,
    show,
)
from kernel.clock import iso

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from custody.reconciliation_model import Item, Run, RunRow
    from reporting.model import ClientMoney

DIFFERENCE_EXIT = 1
UNKNOWN = "unknown"
"""In place of an amount that a token does not tell."""
FIGURES = ("wallet", "asset", "ledger", "chain", "difference", "block")
ITEMS = ("wallet", "asset", "address", "books", "chain", "difference", "what is known")
COVERAGE = ("asset", "state", "holdings", "liabilities", "journal block")


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    for command in (reconcile, reconciliations, differences):
        app.command()(command)


def reconcile(
    *, chain: Chain = CHAIN_DEFAULT, book: Book = BOOK_DEFAULT, as_json: AsJson = False
) -> None:
    """Compare every wallet with the chain at the block where the books stand; exact, no tolerance.

    Says where exactly they differ and what may explain it, records the run, freezes a wallet whose
    coins are missing, and shows whether clients' money is covered. A token that does not tell its
    balances is shown as unknown, and everything else is compared. On Bitcoin it is coin by coin: our
    table and the node's own set of unspent outputs. Needs CAUSEWAY_EVM_URL, or for a chain of Bitcoin
    CAUSEWAY_BITCOIN_URL. Ends with exit code 1 where anything differs or is unknown, or clients are
    short.

    Example: `causeway custody reconcile --json`
    """

    async def work(engine: AsyncEngine) -> tuple[RunRow, list[Item], list[ClientMoney], Money]:
        from custody.reconciliation import explain_run
        from kernel.db import transact
        from reporting.client_money_watch import list_client_money

        made = await _reconciled(engine, chain, book)
        row, items = await transact(engine, lambda conn: explain_run(conn, made.id))
        covered = await transact(engine, lambda conn: list_client_money(conn, book))
        return row, items, list(covered), await transact(engine, Money.load)

    row, items, covered, money = run(lambda: on_database(work))
    _show_run(row, items, money, as_json=as_json, covered=covered)
    if row.result != "clean" or any(item.shortfall for item in covered):
        raise typer.Exit(DIFFERENCE_EXIT)


async def _reconciled(engine: AsyncEngine, chain: str, book: int) -> Run:
    """Compare as the chain's kind asks for."""
    from custody.bitcoin.scan_reconciliation import reconcile_coins
    from custody.reconciliation import reconcile as verb
    from kernel.db import transact
    from registry.model import BITCOIN
    from registry.queries import get_chain

    found = await transact(engine, lambda conn: get_chain(conn, chain))
    if found.kind == BITCOIN:
        async with await chain_nodes(engine, chain) as node:
            return await reconcile_coins(engine, node, chain, book=book, now=clock().now())
    async with await chain_providers(engine, chain, node_url()) as gateway:
        return await verb(engine, gateway, chain, book=book, now=clock().now())


def reconciliations(
    run_id: Annotated[
        UUID | None, typer.Argument(metavar="[RUN]", help="One run, with its items.")
    ] = None,
    *,
    chain: Chain = CHAIN_DEFAULT,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List the recorded reconciliations of a chain, or explain one.

    Example: `causeway custody reconciliations`
    """

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from custody.reconciliation import list_runs

        return [
            (str(r.id), iso(r.at), str(r.height), r.block_hash, r.result, str(r.addresses))
            for r in await list_runs(conn, book=book, chain=chain)
        ]

    async def one(conn: AsyncConnection) -> tuple[RunRow, list[Item], Money]:
        from custody.reconciliation import explain_run

        assert run_id is not None
        return *await explain_run(conn, run_id), await Money.load(conn)

    if run_id is None:
        columns = ("id", "at", "block", "hash", "result", "addresses")
        show("Reconciliations", columns, read(work), as_json=as_json, right=("block", "addresses"))
        return
    row, items, money = read(one)
    _show_run(row, items, money, as_json=as_json)


def differences(
    *, chain: Chain = CHAIN_DEFAULT, book: Book = BOOK_DEFAULT, as_json: AsJson = False
) -> None:
    """List the differences that stand, the oldest first, and for how long.

    Example: `causeway custody differences`
    """

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from custody.reconciliation import list_differences

        money, now = await Money.load(conn), clock().now()
        return [
            (
                d.wallet,
                d.asset,
                d.address,
                money.text(d.amount, d.asset),
                iso(d.opened_at),
                f"{(now - d.opened_at).days} d",
                str(d.last_height - d.opened_height),
                d.detail,
            )
            for d in await list_differences(conn, book=book, chain=chain)
        ]

    columns = ("wallet", "asset", "address", "amount", "since", "age", "blocks", "what is known")
    show("Differences", columns, read(work), as_json=as_json, right=("amount", "age", "blocks"))


def _show_run(
    row: RunRow,
    items: list[Item],
    money: Money,
    *,
    as_json: bool,
    covered: list[ClientMoney] | None = None,
) -> None:
    figures = [_figure(row, figure, money) for figure in row.figures]
    lines = [_item(item, money) for item in items]
    coverage = [_coverage(item, money) for item in covered or []]
    if as_json:
        emit(
            {
                "id": str(row.id),
                "at": iso(row.at),
                "chain": row.chain,
                "block": {"height": row.height, "hash": row.block_hash},
                "result": row.result,
                "addresses": row.addresses,
                "wallets": [dict(zip(FIGURES, line, strict=True)) for line in figures],
                "items": [dict(zip(ITEMS, line, strict=True)) for line in lines],
                "client money": [dict(zip(COVERAGE, line, strict=True)) for line in coverage],
            }
        )
        return
    title = f"Book {row.book} against {row.chain}, {row.addresses} addresses: {row.result}"
    show(title, FIGURES, figures, as_json=False, right=FIGURES[2:])
    if lines:
        show("Item by item", ITEMS, lines, as_json=False, right=ITEMS[3:6])
    if coverage:
        show("Client money", COVERAGE, coverage, as_json=False, right=COVERAGE[2:])


def _figure(row: RunRow, figure: Any, money: Money) -> tuple[str, ...]:
    asset, ledger = figure["asset"], int(figure["ledger"])
    chain = None if figure["chain"] is None else int(figure["chain"])
    return (
        figure["wallet"],
        asset,
        money.text(ledger, asset),
        UNKNOWN if chain is None else money.text(chain, asset),
        UNKNOWN if chain is None else money.text(chain - ledger, asset),
        str(row.height),
    )


def _item(item: Item, money: Money) -> tuple[str, ...]:
    return (
        item.wallet,
        item.asset or f"contract {item.contract}",
        item.address or "no address",
        money.text(item.books, item.asset),
        UNKNOWN if item.chain is None else money.text(item.chain, item.asset),
        UNKNOWN if item.chain is None else money.text(item.difference, item.asset),
        "; ".join(f"{e.reason}: {e.detail}" for e in item.explanations),
    )


def _coverage(item: ClientMoney, money: Money) -> tuple[str, ...]:
    return (
        item.asset,
        str(item.state),
        money.text(item.holdings, item.asset),
        money.text(item.liabilities, item.asset),
        str(item.height),
    )
