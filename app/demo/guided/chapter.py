"""What a chapter is: a story with a name, a question, and assertions at its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.demo.guided.tour import Tour


@dataclass(frozen=True, slots=True)
class Chapter:
    """One story of the tour.

    Attributes:
        name: on the command line and in the result.
        title: for people.
        question: what the viewer is to ask of any system like this one.
        play: tells it; what it claims is proven by `Tour.prove`.
    """

    name: str
    title: str
    question: str
    play: Callable[[Tour], Awaitable[None]]
