"""The manifest of a pack: one JSON document that names every file with its hash. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import orjson

from reporting.errors import MonthEndRefused
from reporting.month_end.model import Pack, PackFile

FORM: Final = "causeway/month-end/1"


def manifest_text(pack: Pack) -> str:
    """Return the manifest; the same pack gives the same text.

    JSON (RFC 8259) in UTF-8, keys sorted, indented by two, one line feed at the end.
    """
    document = {
        "form": FORM,
        "book": pack.book,
        "entity": pack.entity,
        "month": f"{pack.month:%Y-%m}",
        "sequence": pack.sequence,
        "status": "final" if pack.is_final else "preliminary",
        "valuation": {
            "id": str(pack.valuation_id),
            "inputs_sha256": pack.inputs_hash,
            "lines_sha256": pack.lines_hash,
        },
        "prices_sha256": pack.snapshot_hash,
        "files": [
            {"name": item.name, "sha256": item.sha256, "bytes": item.size}
            for item in sorted(pack.files, key=lambda item: item.name)
        ],
        "passed": [
            {
                "obstacle": obstacle.key,
                "what": obstacle.what,
                "reason": waiver.reason,
                "proposed_by": waiver.proposed_by,
                "approved_by": waiver.approved_by,
            }
            for obstacle, waiver in pack.passed
        ],
    }
    return json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def file_of(name: str, content: bytes) -> PackFile:
    """Return a file as the manifest names it."""
    return PackFile(name=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def find_differences(manifest: str, contents: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return what is wrong with files beside their manifest; nothing, if all are as they were.

    Args:
        contents: the files of the folder by name, without the manifest itself.

    Raises:
        MonthEndRefused: it is not a manifest of this form.
    """
    named = {item["name"]: item["sha256"] for item in _read(manifest)["files"]}
    found = [f"{name} is not there" for name in sorted(set(named) - set(contents))]
    found += [f"{name} is not in the manifest" for name in sorted(set(contents) - set(named))]
    found += [
        f"{name} is not the file that was packed"
        for name in sorted(set(named) & set(contents))
        if file_of(name, contents[name]).sha256 != named[name]
    ]
    return tuple(found)


def _read(manifest: str) -> dict[str, Any]:
    try:
        document = orjson.loads(manifest)
    except ValueError as error:
        raise MonthEndRefused(f"the manifest is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("form") != FORM:
        raise MonthEndRefused(f"it is not a manifest of the form {FORM}")
    return document
