"""The tour on a terminal: a transcript that scrolls, and below it what is live.

The transcript is printed once and stays. On a terminal a live part stands below it: the chapters,
what happens at this moment, and where the money is. Into a pipe only the transcript goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Final

from rich import box
from rich.align import Align
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from app.demo.guided.told import Place, Proof, Told
from app.demo.stage import Happening

PIPE_WIDTH: Final = 110
WIDTH_MAX: Final = 132
REFRESHES_A_SECOND: Final = 8
ENDED: Final = "q"


class Quiet:
    """Shows nothing: for whoever reads the result as data."""

    def say(self, words: str) -> None:
        """Ignore *words*."""

    def happened(self, line: Happening) -> None:
        """Ignore *line*."""

    def exhibit(self, title: str, what: RenderableType) -> None:
        """Ignore *what*."""

    def places(self, places: Sequence[Place]) -> None:
        """Ignore *places*."""

    def proved(self, proof: Proof) -> None:
        """Ignore *proof*."""

    async def choose(self, question: str, options: Sequence[str], default: int) -> int:
        """Take the default."""
        del question, options
        return default


class Screen:
    """Shows a tour on a console; whoever watches may be asked."""

    def __init__(self, console: Console, titles: Sequence[str], *, asks: bool) -> None:
        self._console = console
        self._titles = titles
        self._asks = asks
        self._current = -1
        self._places: Sequence[Place] = ()
        self._now = ""
        self._waiting = ""
        self._live: Live | None = None

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Keep the live part on the screen, if this is one."""
        if not self._console.is_terminal:
            yield
            return
        with Live(
            self._below(),
            console=self._console,
            refresh_per_second=REFRESHES_A_SECOND,
            transient=True,
        ) as self._live:
            yield
        self._live = None

    # What a chapter shows.

    def begin(self, number: int, title: str, question: str) -> None:
        """Open a chapter."""
        self._current, self._now = number, ""
        heading = Text(f" {number + 1} · {title} ", style="bold white on blue")
        self._print(Text(""))
        self._print(Rule(heading, style="blue", align="left"))
        self._print(Padding(Text(question, style="bold"), (0, 2)))

    def say(self, words: str) -> None:
        """Show what the viewer is to know."""
        self._print(Padding(Text(words), (1, 4, 0, 2)))

    def happened(self, line: Happening) -> None:
        """Show a line of the time line, and do it below as what happens now."""
        self._now = line.what
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True, style="dim")
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        what = Text(line.what)
        if line.evidence:
            what.append(f"  {line.evidence}", style="dim")
        grid.add_row(f"  {line.at:%H:%M:%S}.{line.at.microsecond // 1000:03}", "[blue]│[/]", what)
        self._print(grid)

    def exhibit(self, title: str, what: RenderableType) -> None:
        """Show a piece of evidence in a frame."""
        panel = Panel(
            what,
            title=f"[bold]{escape(title)}[/]",
            title_align="left",
            border_style="cyan",
            box=box.ROUNDED,
            expand=False,
        )
        self._print(Padding(panel, (1, 2, 0, 2)))

    def places(self, places: Sequence[Place]) -> None:
        """Show where the money is."""
        self._places = places
        self._print(Padding(places_table(places), (1, 2, 0, 2)))

    def proved(self, proof: Proof) -> None:
        """Show an assertion and whether it holds."""
        sign, style = ("✔", "green") if proof.held else ("✘", "bold red")
        word = "proved" if proof.held else "FAILED"
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True, style=style)
        grid.add_column(overflow="fold")
        claim = Text(proof.claim, style="bold")
        claim.append(f"  {proof.detail}", style="not bold dim")
        grid.add_row(f"  {sign} {word}", claim)
        self._print(grid)

    # Whoever watches.

    async def choose(self, question: str, options: Sequence[str], default: int) -> int:
        """Show the options and let the viewer pick one; without a viewer, the default is taken."""
        grid = Table.grid(padding=(0, 1))
        grid.add_column(justify="right", style="cyan", no_wrap=True)
        grid.add_column(overflow="fold")
        for number, option in enumerate(options, 1):
            mark = "[bold cyan]>[/]" if number - 1 == default else " "
            grid.add_row(f"{mark} {number}", Text(option))
        self.exhibit(question, grid)
        if not self._asks:
            return default
        while True:
            answer = await self._ask(f"{question} 1 to {len(options)}, Enter for {default + 1}")
            if not answer:
                return default
            if answer.isdecimal() and 0 < int(answer) <= len(options):
                return int(answer) - 1

    async def pause(self, next_title: str) -> bool:
        """Wait until the viewer wants the next chapter; False if the viewer has seen enough."""
        if not self._asks:
            return True
        answer = await self._ask(f"Enter for the next chapter, “{next_title}”; {ENDED} to end")
        return answer.lower() != ENDED

    def sum_up(self, chapters: Sequence[Told], *, seconds: float, chain: str) -> None:
        """Show every proof of the tour once more."""
        table = Table(box=box.SIMPLE_HEAD, title="What was proven", title_justify="left")
        table.title_style = "bold"
        table.add_column("chapter", style="bold")
        table.add_column("")
        table.add_column("proof", overflow="fold")
        for told in chapters:
            for number, proof in enumerate(told.proofs):
                sign = "[green]✔[/]" if proof.held else "[bold red]✘[/]"
                table.add_row(told.title if number == 0 else "", sign, Text(proof.claim))
        self._print(Text(""))
        self._print(table)
        held = all(told.held for told in chapters)
        verdict = "[green]every proof held[/]" if held else "[bold red]a proof FAILED[/]"
        count = sum(len(told.proofs) for told in chapters)
        self._print(f"{verdict}: {count} in {len(chapters)} chapters, {seconds:.0f} s, on {chain}")

    # How it is shown.

    async def _ask(self, question: str) -> str:
        """Read one line of the viewer's, without holding up anything that runs."""
        self._waiting = question
        self._refresh()
        try:
            return await read_line()
        finally:
            self._waiting = ""
            self._refresh()

    def _print(self, what: RenderableType) -> None:
        self._console.print(what, highlight=False)
        self._refresh()

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._below())

    def _below(self) -> RenderableType:
        steps = Text()
        for number, title in enumerate(self._titles):
            done, is_now = number < self._current, number == self._current
            style = "green" if done else "bold white on blue" if is_now else "dim"
            steps.append(f" {'✔ ' if done else ''}{title} ", style=style)
        parts: list[RenderableType] = [steps]
        if self._places:
            parts.append(places_table(self._places))
        if self._waiting:
            parts.append(Text(f"▶ {self._waiting}", style="bold yellow"))
        else:
            parts.append(Spinner("dots", Text(self._now, style="italic", overflow="ellipsis")))
        return Panel(
            Align.left(Group(*parts)), box=box.HEAVY, border_style="blue", title="now", padding=0
        )


def places_table(places: Sequence[Place]) -> Table:
    """Return where the money is: a row for each asset."""
    table = Table(box=box.SIMPLE_HEAD, title="Where the money is", title_justify="left")
    table.title_style = "bold"
    table.add_column("asset", style="bold")
    columns = ["ledger", "chain", "venue", "bank"]
    if any(item.under_way for item in places):
        columns.append("under way")
    for name in (*columns, "difference"):
        table.add_column(name, justify="right", overflow="fold")
    for item in places:
        figures = (item.ledger, item.chain, item.venue, item.bank, item.under_way)[: len(columns)]
        texts = [item.asset.format(units, code=False) if units else "·" for units in figures]
        difference = item.asset.format(item.difference, code=False)
        style = "bold red" if item.difference else "green"
        table.add_row(item.asset.code, *texts, Text(difference, style=style))
    return table


def open_console(*, stderr: bool = False) -> Console:
    """Return the console of standard output, never wider than is pleasant to read."""
    console = Console(stderr=stderr)
    if not console.is_terminal:
        return Console(stderr=stderr, width=PIPE_WIDTH)
    return Console(stderr=stderr, width=min(console.width, WIDTH_MAX))


async def read_line() -> str:
    """Return the next line of standard input, stripped; "" at its end.

    Raises:
        KeyboardInterrupt: through the event loop, as everywhere; no thread is left behind.
    """
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[str] = loop.create_future()

    def read() -> None:
        if not waiting.done():
            waiting.set_result(sys.stdin.readline().strip())

    loop.add_reader(sys.stdin, read)
    try:
        return await waiting
    finally:
        loop.remove_reader(sys.stdin)
