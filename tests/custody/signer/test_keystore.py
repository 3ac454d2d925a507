"""The keystore's file: who may open it, what opens it, and how its KEK is changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from itertools import count
from pathlib import Path

import msgspec
import pytest

from custody.signer.keystore import (
    Sealed,
    read_keystore,
    rewrap,
    rotate_kek,
    seal,
    unseal,
    write_keystore,
)
from kernel.envelope import kek_id_of, wipe
from kernel.errors import BadInput, Refused, SecretUnreadable
from kernel.private_files import read_kek

KEK, NEW_KEK = bytes(range(32)), bytes(range(1, 33))
SEED = b"s" * 32


def randomness() -> Callable[[int], bytes]:
    """Bytes that differ at every call and are the same in every run."""
    numbers = count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def sealed_seed() -> Sealed:
    return seal(SEED, KEK, key_id="hot", random=randomness())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_keystore(tmp_path / "keystore", sealed_seed())
    return tmp_path / "keystore"


def test_a_keystore_opens_with_its_key_and_with_no_other(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"ssss" not in path.read_bytes()
    assert unseal(read_keystore(path), KEK) == SEED
    with pytest.raises(SecretUnreadable, match="does not open"):
        unseal(read_keystore(path), NEW_KEK)


def with_envelope(sealed: Sealed, **changes: object) -> Sealed:
    return msgspec.structs.replace(
        sealed, envelope=msgspec.structs.replace(sealed.envelope, **changes)
    )


@pytest.mark.parametrize(
    "field", ["key_id", "generation", "wrapped_key", "ciphertext", "nonce", "wrap_nonce"]
)
def test_a_keystore_with_a_changed_field_does_not_open(field: str) -> None:
    sealed = sealed_seed()
    inside = field != "key_id"
    value = getattr(sealed.envelope if inside else sealed, field)
    changed: object
    match value:
        case str():
            changed = "cold"
        case int():
            changed = value + 1
        case _:
            changed = bytes([value[0] ^ 1]) + value[1:]

    change = with_envelope if inside else msgspec.structs.replace

    with pytest.raises(SecretUnreadable, match="does not open"):
        unseal(change(sealed, **{field: changed}), KEK)


@pytest.mark.parametrize(("field", "value"), [("version", 1), ("purpose", "api-key")])
def test_another_kind_of_keystore_is_not_opened(field: str, value: object) -> None:
    with pytest.raises(SecretUnreadable, match="keystore version"):
        unseal(msgspec.structs.replace(sealed_seed(), **{field: value}), KEK)


@pytest.mark.parametrize("length", [0, 5, 16])
def test_a_cut_ciphertext_is_no_seed(length: int) -> None:
    cut = with_envelope(sealed_seed(), ciphertext=sealed_seed().envelope.ciphertext[:length])

    with pytest.raises(SecretUnreadable, match="does not open"):
        unseal(cut, KEK)


def test_a_keystore_is_never_overwritten(path: Path) -> None:
    with pytest.raises(Refused, match="is there already"):
        write_keystore(path, sealed_seed())


def test_a_rotated_keystore_opens_with_the_new_kek_alone(path: Path) -> None:
    before = read_keystore(path)

    after = rotate_kek(path, KEK, NEW_KEK, random=randomness())

    assert after == read_keystore(path)
    assert (after.generation, after.kek_id) == (2, kek_id_of(NEW_KEK))
    assert (after.envelope.ciphertext, after.key_id) == (before.envelope.ciphertext, before.key_id)
    assert after.envelope.wrapped_key != before.envelope.wrapped_key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert unseal(after, NEW_KEK) == SEED
    with pytest.raises(SecretUnreadable, match=f"it is {kek_id_of(KEK)}, and generation 2"):
        unseal(read_keystore(path), KEK)


def test_a_rotation_asked_for_again_changes_nothing(path: Path) -> None:
    rotate_kek(path, KEK, NEW_KEK, random=randomness())
    content = path.read_bytes()

    assert rotate_kek(path, KEK, NEW_KEK, random=randomness()).generation == 2
    assert path.read_bytes() == content


def test_a_rotation_needs_the_old_key_and_a_new_one(path: Path) -> None:
    content = path.read_bytes()

    with pytest.raises(SecretUnreadable, match="does not open"):
        rotate_kek(path, bytes(32), NEW_KEK, random=randomness())
    with pytest.raises(BadInput, match="is the old one"):
        rewrap(read_keystore(path), KEK, KEK, random=randomness())
    assert path.read_bytes() == content


def test_a_wrap_of_an_older_generation_cannot_be_put_back(path: Path) -> None:
    old = read_keystore(path)
    new = rotate_kek(path, KEK, NEW_KEK, random=randomness())
    mixed = with_envelope(
        new,
        wrapped_key=old.envelope.wrapped_key,
        wrap_nonce=old.envelope.wrap_nonce,
        kek_id=old.kek_id,
    )

    with pytest.raises(SecretUnreadable, match="does not open"):
        unseal(mixed, KEK)


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_rotation_that_dies_halfway_leaves_the_old_keystore_whole(
    path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise OSError("the power went")

    with monkeypatch.context() as dying:
        if moment == "fsync":
            dying.setattr(os, "fsync", die)
        else:
            dying.setattr(Path, "replace", die)
        with pytest.raises(OSError, match="the power went"):
            rotate_kek(path, KEK, NEW_KEK, random=randomness())
    assert unseal(read_keystore(path), KEK) == SEED

    rotate_kek(path, KEK, NEW_KEK, random=randomness())

    assert unseal(read_keystore(path), NEW_KEK) == SEED
    assert [item.name for item in path.parent.iterdir()] == ["keystore"]


def test_the_file_and_its_folder_are_on_disk_before_a_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(handle).st_mode))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    write_keystore(tmp_path / "keystore", sealed_seed())
    rotate_kek(tmp_path / "keystore", KEK, NEW_KEK, random=randomness())

    assert synced == [False, True, False, True]


def test_a_wiped_secret_is_gone() -> None:
    seed = unseal(sealed_seed(), KEK)
    wipe(seed)

    assert seed == bytes(32)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_file_that_others_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "kek"
    path.write_text(KEK.hex())
    path.chmod(mode)
    with pytest.raises(SecretUnreadable, match="others may read it"):
        read_kek(path)
    path.chmod(0o600)
    assert read_kek(path) == KEK


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_refused(path: Path) -> None:
    os.chown(path, 65534, -1)

    with pytest.raises(SecretUnreadable, match="belongs to another user"):
        read_keystore(path)


def test_a_file_in_a_folder_that_anybody_may_write_to_is_refused(path: Path) -> None:
    path.parent.chmod(0o777)

    with pytest.raises(SecretUnreadable, match="anybody may put another file"):
        read_keystore(path)


def test_a_link_a_pipe_and_a_folder_are_no_keystores(path: Path) -> None:
    (path.parent / "link").symlink_to(path)
    os.mkfifo(path.parent / "pipe", 0o600)

    with pytest.raises(SecretUnreadable, match="cannot open"):
        read_keystore(path.parent / "link")
    with pytest.raises(SecretUnreadable, match="not a plain file"):
        read_keystore(path.parent / "pipe")
    with pytest.raises(SecretUnreadable, match="cannot open"):
        read_keystore(path.parent / "nothing")


@pytest.mark.parametrize("content", ["{}", "", "null", '{"key_id": 1}', "x" * 20_000])
def test_what_is_no_keystore_is_said_to_be_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keystore"
    path.write_text(content)
    path.chmod(0o600)

    with pytest.raises(SecretUnreadable, match=r"not a keystore|longer than"):
        read_keystore(path)


@pytest.mark.parametrize("content", ["xyz", "00" * 31, ""])
def test_a_kek_is_32_bytes_of_hexadecimal(tmp_path: Path, content: str) -> None:
    path = tmp_path / "kek"
    path.write_text(content)
    path.chmod(0o600)

    with pytest.raises(SecretUnreadable, match="KEK"):
        read_kek(path)
