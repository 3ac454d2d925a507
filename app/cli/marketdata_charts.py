"""A series as a picture (PNG, through matplotlib) or as a page (HTML, plotly, nothing fetched)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from app.cli.marketdata_series import DEPTH_PPM, PPM, Sample, Series, Span, spread_ppm
from kernel.clock import from_unix_ns, iso
from marketdata.model import Instrument

SIZE_INCHES: Final = (12, 8)
DPI: Final = 120
BID: Final = "#1a7f37"
ASK: Final = "#cf222e"
MID: Final = "#0969da"
GAP: Final = "#d4a72c"
RATIOS: Final = (3, 1, 1.5)
LABELS_MAX: Final = 12
"""Gaps nearer to each other than a fraction of the width are named in one line."""


@dataclass(frozen=True, slots=True)
class _Lines:
    """Columns of numbers as they are drawn; None breaks a line."""

    times: list[datetime]
    bid: list[float | None]
    ask: list[float | None]
    mid: list[float | None]
    spread: list[float | None]
    bid_depth: list[float | None]
    ask_depth: list[float | None]


def title_of(series: Series) -> str:
    """Return what a picture is of, in one line."""
    grid = series.instrument
    since, until = from_unix_ns(series.first_ns), from_unix_ns(series.last_ns)
    return f"{grid.symbol} at {grid.venue}, {iso(since)} to {iso(until)}"


def write_png(series: Series, path: Path) -> None:
    """Draw mid, spread, depth and gaps as a picture."""
    lines = _lines(series)
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    price, spread, depth = figure.subplots(3, 1, sharex=True, height_ratios=list(RATIOS))
    times: Any = lines.times  # matplotlib reads datetimes; its annotations say floats
    _steps(price, times, lines.bid, BID, "bid")
    _steps(price, times, lines.ask, ASK, "ask")
    _steps(price, times, lines.mid, MID, "mid")
    trade_times: Any = [from_unix_ns(at) for at, _, _ in series.trades]
    price.scatter(
        trade_times,
        [_price(series.instrument, ticks) for _, ticks, _ in series.trades],
        s=5,
        color="#8c959f",
        alpha=0.4,
        zorder=1,
        label=f"{series.trades_seen:,} trades",
    )
    _steps(spread, times, lines.spread, MID, "spread")
    _steps(depth, times, lines.bid_depth, BID, "bids")
    _steps(depth, times, lines.ask_depth, ASK, "asks")
    for axes, label in zip((price, spread, depth), _axis_titles(series.instrument), strict=True):
        axes.set_ylabel(label)
        axes.grid(visible=True, alpha=0.25)
        for span in series.gaps:
            _shade(axes, series, span)
    _name_gaps(price, series)
    for axes in (price, depth):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", fontsize="small")
    price.set_title(f"{title_of(series)}: {_gaps_text(series)}", loc="left", fontsize="medium")
    depth.set_ylim(bottom=0)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call] # matplotlib's, untyped
    formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call] # see above
    depth.xaxis.set_major_locator(locator)
    depth.xaxis.set_major_formatter(formatter)
    depth.set_xlabel("received, UTC")
    figure.savefig(path, format="png")


def write_html(series: Series, path: Path) -> None:
    """Draw the same as a page that can be zoomed; the script is within it."""
    lines = _lines(series)
    figure = make_subplots(
        rows=3,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.04,
        row_heights=[part / sum(RATIOS) for part in RATIOS],
    )
    for row, name, column, colour in (
        (1, "bid", lines.bid, BID),
        (1, "ask", lines.ask, ASK),
        (1, "mid", lines.mid, MID),
        (2, "spread", lines.spread, MID),
        (3, "bids", lines.bid_depth, BID),
        (3, "asks", lines.ask_depth, ASK),
    ):
        line = {"color": colour, "width": 1, "shape": "hv"}
        figure.add_trace(
            go.Scatter(x=lines.times, y=column, name=name, mode="lines", line=line), row=row, col=1
        )
    figure.add_trace(
        go.Scatter(
            x=[from_unix_ns(at) for at, _, _ in series.trades],
            y=[_price(series.instrument, ticks) for _, ticks, _ in series.trades],
            text=[series.instrument.base.format(units) for _, _, units in series.trades],
            name=f"{series.trades_seen:,} trades",
            mode="markers",
            marker={"size": 4, "color": "#57606a", "opacity": 0.5},
        ),
        row=1,
        col=1,
    )
    for span in series.gaps:
        figure.add_vrect(
            x0=from_unix_ns(span.since_ns),
            x1=from_unix_ns(span.until_ns or series.last_ns),
            fillcolor=GAP,
            opacity=0.3,
            line_width=1,
            line_color=GAP,
        )
        figure.add_annotation(
            x=from_unix_ns(span.since_ns),
            y=1,
            yref="paper",
            text=f"{span.channel}: {span.reason}",
            hovertext=span.detail,
            showarrow=False,
            xanchor="left",
            textangle=-90,
            yanchor="top",
        )
    for row, text in enumerate(_axis_titles(series.instrument), start=1):
        figure.update_yaxes(title_text=text, row=row, col=1)
    figure.update_layout(
        title=f"{title_of(series)}: {_gaps_text(series)}",
        template="plotly_white",
        hovermode="x unified",
    )
    figure.write_html(path, include_plotlyjs=True, full_html=True)


def _lines(series: Series) -> _Lines:
    grid, samples = series.instrument, series.samples
    return _Lines(
        times=[from_unix_ns(item.at_ns) for item in samples],
        bid=[_price(grid, item.bid_ticks) if item.is_book else None for item in samples],
        ask=[_price(grid, item.ask_ticks) if item.is_book else None for item in samples],
        mid=[_mid(grid, item) for item in samples],
        spread=[spread_ppm(item) / 100 if item.is_book else None for item in samples],
        bid_depth=[_depth(grid, item.bid_units) if item.is_book else None for item in samples],
        ask_depth=[_depth(grid, item.ask_units) if item.is_book else None for item in samples],
    )


def _steps(axes: Axes, times: Any, values: Sequence[float | None], colour: str, label: str) -> None:
    """Draw a line in steps: a book stays as it is until it changes; None breaks it."""
    number = 0
    for is_there, run in groupby(
        zip(times, values, strict=True), key=lambda pair: pair[1] is not None
    ):
        if not is_there:
            continue
        run_times, run_values = zip(*run, strict=True)
        axes.plot(
            run_times,
            run_values,
            color=colour,
            linewidth=0.9,
            drawstyle="steps-post",
            label=label if not number else None,
        )
        number += 1


def _shade(axes: Axes, series: Series, span: Span) -> None:
    since: Any = from_unix_ns(span.since_ns)
    until: Any = from_unix_ns(span.until_ns or series.last_ns)
    axes.axvspan(since, until, color=GAP, alpha=0.3, linewidth=1)


def _name_gaps(axes: Axes, series: Series) -> None:
    """Write beside each gap what it is of and why; of those that lie together, one line."""
    named: list[tuple[int, list[str]]] = []
    near_ns = (series.last_ns - series.first_ns) // LABELS_MAX // 4
    for span in series.gaps:
        if named and span.since_ns - named[-1][0] <= near_ns:
            named[-1][1].append(f"{span.channel}: {span.reason}")
        else:
            named.append((span.since_ns, [f"{span.channel}: {span.reason}"]))
    for since_ns, texts in named[: 2 * LABELS_MAX]:
        at: Any = from_unix_ns(since_ns)
        axes.text(
            at,
            0.02,
            " " + ", ".join(dict.fromkeys(texts)),
            transform=axes.get_xaxis_transform(),
            rotation=90,
            fontsize="x-small",
            verticalalignment="bottom",
        )


def _gaps_text(series: Series) -> str:
    count = len(series.gaps)
    return "no gap" if not count else f"{count} gap{'s' if count > 1 else ''}"


def _axis_titles(grid: Instrument) -> tuple[str, str, str]:
    within = f"{100 * DEPTH_PPM / PPM:g} %"
    return (grid.quote.code, "spread, bp", f"{grid.base.code} within {within}")


def _price(grid: Instrument, ticks: int) -> float:
    return ticks * grid.tick / int(10**grid.price_scale)


def _mid(grid: Instrument, item: Sample) -> float | None:
    return _price(grid, item.bid_ticks + item.ask_ticks) / 2 if item.is_book else None


def _depth(grid: Instrument, units: int) -> float:
    return units / int(10**grid.base.scale)
