"""The chapters of the tour, in their order; each needs the founding and no other."""

from __future__ import annotations

from typing import Final

from app.demo.guided.chapter import Chapter
from app.demo.guided.chapters import (
    chain,
    crash,
    exports,
    founding,
    guard,
    insider,
    netting,
    policy,
    venue,
)

FOUNDING: Final = founding.CHAPTER
CHAPTERS: Final[tuple[Chapter, ...]] = (
    FOUNDING,
    chain.CHAPTER,
    venue.CHAPTER,
    netting.CHAPTER,
    crash.CHAPTER,
    insider.CHAPTER,
    policy.CHAPTER,
    guard.CHAPTER,
    exports.CHAPTER,
)
