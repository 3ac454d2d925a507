"""Reading the signer's rules: a JSON file that only the signer's user may open."""

from __future__ import annotations

from pathlib import Path

import msgspec

from custody.signer.rules import Rules, check_rules
from kernel.errors import BadInput, SecretUnreadable
from kernel.private_files import read_private_file


def read_rules(path: Path) -> Rules:
    """Read the rules file, refusing one that others may read or that allows without approval."""
    try:
        rules = msgspec.json.decode(read_private_file(path), type=Rules)
        check_rules(rules)
    except SecretUnreadable:
        raise
    except (msgspec.DecodeError, ValueError, BadInput) as error:
        raise SecretUnreadable("these are not signer rules", where=f"{path}: {error}") from error
    return rules
