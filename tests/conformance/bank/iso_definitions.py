"""ISO's message definitions as other people generated them (pyiso20022), and what a message holds by them.

The library's classes are read from its source, not run: what is wanted is which elements there are, in which
order, which are required, and which words and patterns their texts have.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lxml import etree


@dataclass(frozen=True)
class Member:
    """An element of a class: its name in XML, its class, its bounds."""

    name: str
    kind: str
    required: bool
    many: bool
    pattern: str
    length_max: int


@dataclass(frozen=True)
class Definition:
    """A class: its elements in their order, or the words that it may be."""

    members: tuple[Member, ...] = ()
    words: frozenset[str] = frozenset()


@dataclass
class Found:
    """An element that is as its definition says."""

    text: str
    attributes: dict[str, str]
    children: dict[str, list[Found]] = field(default_factory=dict)

    def all(self, path: str) -> list[Found]:
        """Return every element at *path*."""
        found = [self]
        for name in path.split("/"):
            found = [child for item in found for child in item.children.get(name, [])]
        return found

    def one(self, path: str) -> str:
        """Return the text of the only element at *path*; "" where there is none."""
        texts = [item.text for item in self.all(path)]
        assert len(texts) <= 1, path
        return texts[0] if texts else ""


def read_message(raw: bytes, message: str) -> Found:
    """Return a message, held against its definition element by element."""
    return _read(etree.fromstring(raw), "Document", definitions(message))


def _read(item: etree._Element, name: str, known: dict[str, Definition]) -> Found:
    definition = known.get(name, Definition())
    here = etree.QName(item).localname
    found = Found((item.text or "").strip(), {str(k): str(v) for k, v in item.attrib.items()})
    if definition.words:
        assert found.text in definition.words, f"{here}: {found.text}"
    places = {member.name: place for place, member in enumerate(definition.members)}
    order = []
    for child in item:
        word = etree.QName(child).localname
        assert word in places, f"{here} has no {word}"
        member = definition.members[places[word]]
        order.append(places[word])
        read = _read(child, member.kind, known)
        if member.pattern and not len(child):
            assert re.fullmatch(member.pattern, read.text), f"{word}: {read.text}"
        assert not member.length_max or len(read.text) <= member.length_max, f"{word}: {read.text}"
        found.children.setdefault(word, []).append(read)
    assert order == sorted(order), f"{here} is out of order"
    for member in definition.members:
        count = len(found.children.get(member.name, []))
        assert count >= member.required, f"{here} has no {member.name}"
        assert member.many or count <= 1, f"{here} has {count} {member.name}"
    return found


@functools.cache
def definitions(message: str) -> dict[str, Definition]:
    """Return the classes of a message by name; the root is ``Document``."""
    spec = importlib.util.find_spec("pyiso20022")
    assert spec is not None
    assert spec.origin is not None
    stem = message.replace(".", "_")
    source = Path(spec.origin).parent / message.partition(".")[0] / stem / f"{stem}.py"
    classes = [
        item for item in ast.parse(source.read_text()).body if isinstance(item, ast.ClassDef)
    ]
    return {item.name: _definition(item) for item in classes}


def _definition(item: ast.ClassDef) -> Definition:
    if any(isinstance(base, ast.Name) and base.id == "Enum" for base in item.bases):
        values = [line.value for line in item.body if isinstance(line, ast.Assign)]
        return Definition(words=frozenset(str(ast.literal_eval(value)) for value in values))
    lines = [line for line in item.body if isinstance(line, ast.AnnAssign)]
    return Definition(tuple(m for line in lines if (m := _member(line)) is not None))


def _member(line: ast.AnnAssign) -> Member | None:
    assert isinstance(line.value, ast.Call)
    said: dict[str, Any] = {}
    for word in line.value.keywords:
        if word.arg == "metadata":
            assert isinstance(word.value, ast.Dict)
            for key, value in zip(word.value.keys, word.value.values, strict=True):
                if key is not None and isinstance(value, ast.Constant):
                    said[ast.literal_eval(key)] = value.value
    if said.get("type") != "Element":
        return None
    kind = ast.unparse(line.annotation)
    return Member(
        name=said["name"],
        kind=re.sub(r"None|list|[\[\]| ]", "", kind),
        required=bool(said.get("required")) or said.get("min_occurs", 0) > 0,
        many="list[" in kind,
        pattern=said.get("pattern", ""),
        length_max=said.get("max_length", 0),
    )
