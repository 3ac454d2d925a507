"""Several seeds, and a token, behind one port."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from custody.signer.backends.local import LocalKeys
from custody.signer.backends.pkcs11 import TokenKeys
from custody.signer.backends.ring import TokenSource, open_keys
from custody.signer.errors import SignerRefused
from custody.signer.hd_keys import PrivateNode
from custody.signer.keystore import seal, write_keystore
from kernel.errors import BadInput, SecretUnreadable
from tests.custody.signer.softhsm import CONFIGURATION, LABEL, make_token

OLD, NEW = bytes(range(32)), bytes(range(1, 33))


def keystore(folder: Path, name: str, seed: bytes, accounts: list[int]) -> tuple[Path, Path]:
    kek = secrets.token_bytes(32)
    (folder / f"{name}.kek").touch(mode=0o600)
    (folder / f"{name}.kek").write_text(kek.hex())
    sealed = seal(seed, kek, key_id=name, random=secrets.token_bytes, accounts=accounts)
    write_keystore(folder / name, sealed)
    return folder / name, folder / f"{name}.kek"


def test_an_old_and_a_new_seed_serve_their_own_accounts_at_once(tmp_path: Path) -> None:
    both = [keystore(tmp_path, "old", OLD, [0, 1]), keystore(tmp_path, "new", NEW, [2])]
    with open_keys(both) as keys:
        assert keys.key_id == "old+new"
        for account, seed in ((0, OLD), (1, OLD), (2, NEW)):
            root = PrivateNode.from_seed(seed)
            path = f"m/44'/60'/{account}'"
            assert keys.account_xpub(path) == root.derive(path).xpub()
            assert keys.public_key(f"{path}/1/0") == root.derive(f"{path}/1/0").uncompressed_key
            assert keys.sign_digest(f"{path}/1/0", bytes(32)) == root.derive(f"{path}/1/0").sign(
                bytes(32)
            )
        for path in ("m/44'/60'/3'/1/0", "m/44'/60'", "hot"):
            with pytest.raises(SignerRefused, match="no key of this signer"):
                keys.public_key(path)


def test_a_seed_is_not_used_for_an_account_that_it_is_not_for() -> None:
    keys = LocalKeys("old", PrivateNode.from_seed(OLD), frozenset({0}))

    assert keys.account_xpub("m/44'/60'/0'")
    with pytest.raises(SignerRefused, match="is not for"):
        keys.account_xpub("m/44'/60'/1'")
    with pytest.raises(SignerRefused, match="is not for"):
        keys.sign_digest("m/44'/60'/1'/1/0", bytes(32))


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (("old", [0, 1]), ("new", [1]), "both for account 1'"),
        (("old", []), ("new", [1]), "for every account"),
        (("old", [0]), ("old", [1]), "two keystores are called old"),
    ],
)
def test_two_seeds_for_one_account_are_refused(
    tmp_path: Path, first: tuple[str, list[int]], second: tuple[str, list[int]], says: str
) -> None:
    (tmp_path / "other").mkdir()
    both = [
        keystore(tmp_path, first[0], OLD, first[1]),
        keystore(tmp_path / "other", second[0], NEW, second[1]),
    ]

    with pytest.raises(BadInput, match=says), open_keys(both):
        pytest.fail("it was opened")


def test_the_accounts_of_a_keystore_cannot_be_changed_in_its_file(tmp_path: Path) -> None:
    path, kek = keystore(tmp_path, "old", OLD, [0])
    path.write_text(path.read_text().replace('"accounts":[0]', '"accounts":[0,1]'))

    with pytest.raises(SecretUnreadable, match="does not open"), open_keys([(path, kek)]):
        pytest.fail("it was opened")


def test_a_signer_without_keys_does_not_open() -> None:
    with pytest.raises(BadInput, match="needs a keystore or a token"), open_keys():
        pytest.fail("it was opened")


def test_a_token_stands_beside_a_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = make_token(tmp_path)
    monkeypatch.setenv(CONFIGURATION, str(token.configuration))
    token.start_anew()
    with TokenKeys.open(token.module, LABEL, token.pin) as made:
        public = made.make_key("hot")
        with pytest.raises(BadInput, match="path of derivation"):
            made.make_key("m/44'")

    source = TokenSource(token.module, LABEL, token.pin)
    with open_keys([keystore(tmp_path, "deposits", OLD, [0])], source) as keys:
        assert keys.public_key("hot") == public
        assert keys.account_xpub("m/44'/60'/0'")
        with pytest.raises(SignerRefused, match="no key of this signer"):
            keys.public_key("m/44'/60'/1'/1/0")
    with open_keys(token=source) as keys:
        assert keys.key_id == LABEL
        assert keys.sign_digest("hot", bytes(32)).r
