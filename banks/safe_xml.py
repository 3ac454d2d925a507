"""XML from outside, read without trust: no entities, no document types, no network, bounded in size.

A document that declares a document type is refused before it is parsed: without one there are no entities
to expand or to fetch (OWASP, XML External Entity Prevention). What is left is validated against a
schema of our own folder.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Final

from lxml import etree

from banks.errors import FileUnreadable

BYTES_MAX: Final = 32 * 1024 * 1024
MARKS_MAX: Final = 3_500_000
"""Signs ``<`` and ``=``: of each element or attribute a hundred bytes or more are in memory. A file of
`BYTES_MAX` that a bank has written has fewer."""
SCHEMAS: Final = Path(__file__).parent / "schemas"
_ENCODINGS: Final = frozenset({"UTF-8", "US-ASCII", "ASCII", "ISO-8859-1", "ISO-8859-15"})
_DECLARED = re.compile(rb"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)


def parse_xml(raw: bytes, *, bytes_max: int = BYTES_MAX) -> etree._Element:
    """Return the root of a document.

    Raises:
        FileUnreadable: too large, no XML, an encoding that hides things, or a document type.
    """
    if len(raw) > bytes_max:
        raise FileUnreadable(f"the file has {len(raw)} bytes, more than {bytes_max}")
    if raw.count(b"<") + raw.count(b"=") > MARKS_MAX:
        raise FileUnreadable(f"the file has more than {MARKS_MAX} elements and attributes")
    if b"\x00" in raw:
        raise FileUnreadable("the file is not in UTF-8, and what is in it cannot be seen")
    if _DECLARED.search(raw):
        raise FileUnreadable("the file declares a document type; messages of banks have none")
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(raw, parser)
    except (etree.XMLSyntaxError, ValueError, LookupError) as error:
        raise FileUnreadable(f"the file is not XML: {error}") from error
    encoding = (root.getroottree().docinfo.encoding or "UTF-8").upper()
    if encoding not in _ENCODINGS:
        raise FileUnreadable(f"the file is in {encoding}, which is not read")
    return root


def validate(root: etree._Element, schema: str) -> None:
    """Hold a document against a schema of `SCHEMAS`, named with its ending.

    Raises:
        FileUnreadable: says the first place that differs.
    """
    try:
        _schema(schema).assertValid(root)
    except etree.DocumentInvalid as error:
        raise FileUnreadable(f"the file is not as {schema} says: {error}") from error


@functools.cache
def _schema(name: str) -> etree.XMLSchema:
    return etree.XMLSchema(etree.parse(SCHEMAS / name))
