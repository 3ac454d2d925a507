"""Failed comparisons of the machine say what differs, as those of a test do."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.properties.ledger_machine")
