"""The pages of the documentation, and what is read from them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.machines import REPOSITORY

README = REPOSITORY / "README.md"
PAGES = (
    README,
    REPOSITORY / "CHANGELOG.md",
    REPOSITORY / "GUARANTEES.md",
    REPOSITORY / "SECURITY.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
)
FENCE = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
DEMO = re.compile(r"<!-- demo -->\n```text\n(?P<text>.*?)```", re.DOTALL)


def commands(page: Path, program: str) -> list[str]:
    """Return every command of *program* on a page: shell blocks, console prompts, inline code."""
    text = page.read_text()
    lines = []
    for block in FENCE.finditer(text):
        lines += [
            line.removeprefix("$ ")
            for line in block["text"].splitlines()
            if block["kind"] == "sh" or line.startswith("$ ")
        ]
    lines += INLINE.findall(FENCE.sub("", text))
    return [line.partition("#")[0].strip() for line in lines if line.startswith(f"{program} ")]


def demo_output() -> str:
    """Return what the README says that the demo prints."""
    found = DEMO.search(README.read_text())
    assert found is not None
    return found["text"]
