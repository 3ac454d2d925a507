"""A revision of the database as a module, for tests that compare what it writes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

VERSIONS = Path(__file__).parents[2] / "alembic/versions"


def load_revision(name: str) -> Any:
    """Return the module of a revision."""
    spec = importlib.util.spec_from_file_location(name, VERSIONS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
