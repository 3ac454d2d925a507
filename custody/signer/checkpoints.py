"""Checkpoints of the signer's log, kept in places that do not go back with its store.

A store that is restored from a backup, or replaced by another, looks like a good one: it opens, and
it would sign again what it signed since. So before an answer leaves the signer, the size and root of
its log are written, signed, to other places (C2SP tlog-checkpoint), and at the next start the log
must contain what each of them says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from custody.signer.audit import AuditLog
from custody.signer.errors import StoreUnusable
from kernel.errors import BadInput, Refused, SecretUnreadable
from kernel.private_files import read_private_file, replace_file, write_new_file
from ledger.checkpoint import Checkpoint, sign, verifier_key, verify

NOTE_BYTES_MAX: Final = 4_096
KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True, repr=False)
class CheckpointKey:
    """The Ed25519 key that signs checkpoints: made with the store, so it names the store too."""

    name: str
    private: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"CheckpointKey({self.name!r}, …)"

    @property
    def verifier_key(self) -> str:
        """Return the public half as one line of text (C2SP signed-note)."""
        return verifier_key(self.name, self.private.public_key())

    def note(self, log: AuditLog) -> str:
        """Return the signed checkpoint of the log as it stands."""
        return sign(Checkpoint(self.name, log.size, log.root), self.private, name=self.name)


def key_name(key_id: str) -> str:
    """Return what the checkpoints of the signer with the keys *key_id* are called."""
    return f"causeway-signer/{quote(key_id, safe='')}"


def make_key(path: Path, name: str, random: Callable[[int], bytes]) -> CheckpointKey:
    """Make the checkpoint key and write it to *path* with mode 0600; never over an existing one."""
    secret = random(KEY_BYTES)
    write_new_file(path, secret.hex().encode())
    return CheckpointKey(name, Ed25519PrivateKey.from_private_bytes(secret))


def read_key(path: Path, name: str) -> CheckpointKey:
    """Read the checkpoint key from a file that nobody else may read."""
    try:
        secret = bytes.fromhex(read_private_file(path).decode("ascii"))
        return CheckpointKey(name, Ed25519PrivateKey.from_private_bytes(secret))
    except ValueError:
        # The error's own text may quote what it read.
        raise SecretUnreadable("this is not a checkpoint key", where=str(path)) from None


@dataclass(slots=True)
class Places:
    """Where checkpoints are kept; all of them are written before an answer leaves."""

    key: CheckpointKey
    paths: Sequence[Path]
    _written: int = -1

    def check(self, log: AuditLog) -> None:
        """Refuse a log that does not contain what every place says that it contained.

        Raises:
            StoreUnusable: the store is behind, forked, or one of the places has lost its checkpoint.
        """
        for path in self.paths:
            self._check_one(path, log)

    def write(self, log: AuditLog) -> None:
        """Write the checkpoint of the log to each place, unless it stands there already.

        Raises:
            OSError: a place cannot be written; nothing may be answered.
        """
        if self._written == log.size:
            return
        note = self.key.note(log).encode()
        for path in self.paths:
            replace_file(path, note)
        self._written = log.size

    def _check_one(self, path: Path, log: AuditLog) -> None:
        try:
            text = path.read_bytes()[:NOTE_BYTES_MAX].decode()
        except FileNotFoundError as error:
            raise StoreUnusable(
                "the last checkpoint of the signer's store is missing",
                where=str(path),
                remedy="Bring it back; for a new place, write one with `checkpoint`",
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise StoreUnusable("a checkpoint cannot be read", where=f"{path}: {error}") from error
        try:
            kept = verify(text, self.key.private.public_key(), name=self.key.name)
        except (BadInput, Refused) as error:
            raise StoreUnusable(
                f"not this signer's checkpoint: {error.what}", where=str(path)
            ) from error
        require_continued(log, kept, where=str(path))


def require_continued(log: AuditLog, kept: Checkpoint, *, where: str) -> None:
    """Refuse a log that is shorter than *kept*, or another log.

    Raises:
        StoreUnusable: says which.
    """
    if log.size < kept.size:
        raise StoreUnusable(
            f"the store has {log.size} records and its last checkpoint {kept.size}: it is older than"
            " what was signed",
            where=where,
            remedy="Bring the newest copy of the store back; see the signer's restore drill",
        )
    if log.root_at(kept.size) != kept.root:
        raise StoreUnusable(
            f"the store's first {kept.size} records are not those of its checkpoint",
            where=where,
            remedy="It is a fork or was tampered with: bring the right store back",
        )
