"""One suite for whoever holds the keys: a seed in memory, or a token; then what only tokens do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pkcs11
import pytest
from coincurve import PrivateKey
from eth_keys.datatypes import PublicKey as SecondOpinion
from eth_keys.datatypes import Signature as SecondSignature
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

from chain.evm.addresses import address_of_public_key
from chain.evm.transactions import CURVE_ORDER
from custody.signer.backends.local import LocalKeys
from custody.signer.backends.pkcs11 import (
    SECP256K1_OID,
    TokenKeys,
    read_signature,
    unwrap_point,
)
from custody.signer.backends.port import KeyBackend, Signature, low_s
from custody.signer.errors import SignerRefused
from custody.signer.hd_keys import PrivateNode
from kernel.errors import BadInput, OutsideUnavailable, Refused, SecretUnreadable
from tests.custody.signer.softhsm import (
    CONFIGURATION,
    LABEL,
    PIN,
    SoftToken,
    make_token,
)

LOCAL_PATH = "m/44'/60'/0'/1/0"
DIGESTS = [hashlib.sha256(b"%d" % number).digest() for number in range(40)]
BACKENDS = ["local", "token"]


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SoftToken]:
    made = make_token(tmp_path)
    monkeypatch.setenv(CONFIGURATION, str(made.configuration))
    made.start_anew()
    yield made
    # The module must not remember a folder that the next test does not have.
    pkcs11.lib(str(made.module)).finalize()


@pytest.fixture
def keys(token: SoftToken) -> Iterator[TokenKeys]:
    with TokenKeys.open(token.module, LABEL, token.pin) as opened:
        opened.make_key("hot")
        yield opened


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> tuple[KeyBackend, str]:
    """A backend, and the path of a key that it has."""
    if request.param == "local":
        return LocalKeys("seed", PrivateNode.from_seed(bytes(range(32)))), LOCAL_PATH
    return request.getfixturevalue("keys"), "hot"


# Every backend.


def test_the_public_key_makes_an_address_that_two_libraries_agree_on(
    backend: tuple[KeyBackend, str],
) -> None:
    keys, path = backend
    public = keys.public_key(path)

    assert len(public) == 65
    assert address_of_public_key(public) == SecondOpinion(public[1:]).to_checksum_address()
    assert keys.public_key(path) == public


def test_signatures_verify_have_a_low_s_and_recover_the_key(
    backend: tuple[KeyBackend, str],
) -> None:
    keys, path = backend
    public = keys.public_key(path)
    for digest in DIGESTS:
        signature = keys.sign_digest(path, digest)
        told = SecondSignature(vrs=(signature.y_parity, signature.r, signature.s))

        assert 0 < signature.s <= CURVE_ORDER // 2
        assert told.recover_public_key_from_msg_hash(digest).to_bytes() == public[1:]
        assert told.verify_msg_hash(digest, SecondOpinion(public[1:]))


def test_a_digest_that_is_signed_twice_gives_two_signatures_of_the_same_key(
    backend: tuple[KeyBackend, str],
) -> None:
    # They may differ, so only the signer's memory can promise the same bytes.
    keys, path = backend
    first, second = (keys.sign_digest(path, DIGESTS[0]) for _ in range(2))

    assert (first == second) is isinstance(keys, LocalKeys)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_only_a_hash_of_32_bytes_is_signed(backend: tuple[KeyBackend, str], size: int) -> None:
    keys, path = backend
    with pytest.raises(BadInput, match="hash of 32 bytes"):
        keys.sign_digest(path, bytes(size))


@pytest.mark.parametrize("path", ["m/44'/60'/0'", "m/44'/60'/0'/1/0/0", "m/44'/60'/0/1/0"])
def test_a_path_without_a_sending_key_is_refused(
    backend: tuple[KeyBackend, str], path: str
) -> None:
    keys, _ = backend
    with pytest.raises(SignerRefused):
        keys.public_key(path)
    with pytest.raises(SignerRefused):
        keys.sign_digest(path, DIGESTS[0])


@pytest.mark.parametrize("path", ["m", "m/44'", "m/44'/60'/0'/1", "m/44'/60'/0'/1/0"])
def test_no_extended_key_is_given_but_that_of_an_account(
    backend: tuple[KeyBackend, str], path: str
) -> None:
    with pytest.raises(SignerRefused):
        backend[0].account_xpub(path)


def test_a_backend_shows_no_secret(backend: tuple[KeyBackend, str]) -> None:
    keys, _ = backend

    assert PIN not in repr(keys)
    assert repr(keys) in {"LocalKeys('seed', …)", "TokenKeys('causeway', …)"}


# Tokens.


def test_a_tokens_key_cannot_be_read(keys: TokenKeys) -> None:
    with pytest.raises(pkcs11.AttributeSensitive):
        keys.keys["hot"].handle[Attribute.VALUE]


def test_a_token_keeps_its_keys_when_it_is_opened_again(token: SoftToken) -> None:
    with TokenKeys.open(token.module, LABEL, token.pin) as first:
        made = {label: first.make_key(label) for label in ("hot", "gas")}
        with pytest.raises(Refused, match="is there already"):
            first.make_key("hot")
    with TokenKeys.open(token.module, LABEL, token.pin) as second:
        assert second.labels() == ["gas", "hot"]
        assert {label: second.public_key(label) for label in made} == made


def test_half_of_a_tokens_signatures_need_their_s_turned(keys: TokenKeys) -> None:
    handle = keys.keys["hot"].handle
    raw = [handle.sign(digest, mechanism=Mechanism.ECDSA) for digest in DIGESTS]

    # So that the suite above did see high ones: all low would happen once in 10**12 runs.
    assert any(int.from_bytes(one[32:], "big") > CURVE_ORDER // 2 for one in raw)


def generate(session: pkcs11.Session, label: str, curve: bytes, **private: object) -> None:
    parameters = session.create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: curve}, local=True
    )
    parameters.generate_keypair(
        store=True,
        label=label,
        id=label.encode(),
        capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
        private_template={
            Attribute.EXTRACTABLE: False,
            Attribute.SENSITIVE: True,
            **{Attribute[name]: value for name, value in private.items()},
        },
    )


@pytest.mark.parametrize(
    ("curve", "private", "says"),
    [
        pytest.param(
            SECP256K1_OID, {"EXTRACTABLE": True}, "EXTRACTABLE is not False", id="extractable"
        ),
        pytest.param(SECP256K1_OID, {"SENSITIVE": False}, "SENSITIVE is not True", id="readable"),
        pytest.param(
            bytes.fromhex("06082a8648ce3d030107"), {}, "another curve", id="another curve"
        ),
    ],
)
def test_a_token_with_an_unsafe_key_is_not_opened(
    token: SoftToken, curve: bytes, private: dict[str, object], says: str
) -> None:
    with (
        pkcs11.lib(str(token.module))
        .get_token(token_label=LABEL)
        .open(rw=True, user_pin=PIN) as session
    ):
        generate(session, "loose", curve, **private)

    with (
        pytest.raises(SecretUnreadable, match=says),
        TokenKeys.open(token.module, LABEL, token.pin),
    ):
        pytest.fail("it was opened")


def import_key(session: pkcs11.Session, label: str, secret: PrivateKey) -> None:
    session.create_object(
        {
            Attribute.CLASS: ObjectClass.PRIVATE_KEY,
            Attribute.KEY_TYPE: KeyType.EC,
            Attribute.EC_PARAMS: SECP256K1_OID,
            Attribute.VALUE: secret.secret,
            Attribute.LABEL: label,
            Attribute.TOKEN: True,
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
            Attribute.SIGN: True,
        }
    )


def put_public_key(session: pkcs11.Session, label: str, public: bytes) -> None:
    session.create_object(
        {
            Attribute.CLASS: ObjectClass.PUBLIC_KEY,
            Attribute.KEY_TYPE: KeyType.EC,
            Attribute.EC_PARAMS: SECP256K1_OID,
            Attribute.EC_POINT: bytes([0x04, 65]) + public,
            Attribute.LABEL: label,
            Attribute.TOKEN: True,
        }
    )


def test_a_key_that_came_from_outside_is_refused(token: SoftToken) -> None:
    with (
        pkcs11.lib(str(token.module))
        .get_token(token_label=LABEL)
        .open(rw=True, user_pin=PIN) as session
    ):
        import_key(session, "brought", PrivateKey(b"\x07" * 32))

    with (
        pytest.raises(SecretUnreadable, match=r"(SENSITIVE|EXTRACTABLE|LOCAL) is not"),
        TokenKeys.open(token.module, LABEL, token.pin),
    ):
        pytest.fail("it was opened")


def test_a_key_that_became_unsafe_while_the_token_is_open_is_refused(
    token: SoftToken, keys: TokenKeys
) -> None:
    with pkcs11.lib(str(token.module)).get_token(token_label=LABEL).open(rw=True) as session:
        generate(session, "late", SECP256K1_OID, EXTRACTABLE=True)

    with pytest.raises(SecretUnreadable, match="EXTRACTABLE is not False"):
        keys.public_key("late")


def test_a_public_key_that_is_not_the_private_keys_is_found_out(
    token: SoftToken, keys: TokenKeys
) -> None:
    with pkcs11.lib(str(token.module)).get_token(token_label=LABEL).open(rw=True) as session:
        for item in session.get_objects(
            {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: "hot"}
        ):
            item.destroy()
        put_public_key(session, "hot", PrivateKey(b"\x07" * 32).public_key.format(compressed=False))
    keys.close()

    with pytest.raises(OutsideUnavailable, match="no signature by this key"):
        keys.public_key("hot")


def test_two_keys_of_one_label_are_refused(token: SoftToken, keys: TokenKeys) -> None:
    with pkcs11.lib(str(token.module)).get_token(token_label=LABEL).open(rw=True) as session:
        generate(session, "hot", SECP256K1_OID)
    keys.close()

    with pytest.raises(OutsideUnavailable, match="two keys on the token are called hot"):
        keys.public_key("hot")


def test_a_lost_session_is_opened_again_and_is_still_the_only_one(
    token: SoftToken, keys: TokenKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = keys.public_key("hot")
    for _ in range(20):
        token.start_anew()
        assert keys.sign_digest("hot", DIGESTS[0]).s <= CURVE_ORDER // 2
    lost = keys.session
    assert lost is not None
    lost.close()

    assert keys.public_key("hot") == public
    assert keys.sign_digest("hot", DIGESTS[0]).r
    keys.close()
    # A login ends with the last session: another one could not log in if one were left.
    with pkcs11.lib(str(token.module)).get_token(token_label=LABEL).open(user_pin=PIN):
        pass


def test_a_key_that_a_token_had_is_not_said_to_be_none(token: SoftToken, keys: TokenKeys) -> None:
    # That would be a refusal, and end a payment that only has to wait.
    keys.make_key("gas")
    keys.close()
    assert keys.labels() == ["gas", "hot"]
    token.hide()
    with pytest.raises(OutsideUnavailable, match="does not answer"):
        keys.public_key("gas")
    token.plug_in()

    assert len(keys.public_key("gas")) == 65
    with pytest.raises(SignerRefused, match="has no key cold"):
        keys.public_key("cold")


def test_an_unplugged_token_is_unavailable_and_works_again_when_it_is_back(
    token: SoftToken, keys: TokenKeys
) -> None:
    public = keys.public_key("hot")
    token.unplug()
    for _ in range(3):
        with pytest.raises(OutsideUnavailable, match="does not answer"):
            keys.sign_digest("hot", DIGESTS[0])
    token.plug_in()

    assert keys.public_key("hot") == public
    assert keys.sign_digest("hot", DIGESTS[0]).r


def test_a_wrong_pin_is_tried_once_only(token: SoftToken, keys: TokenKeys) -> None:
    token.pin.write_text("000000")
    keys.close()
    with pytest.raises(OutsideUnavailable, match="refuses the PIN: PinIncorrect") as caught:
        keys.public_key("hot")
    token.pin.write_text(PIN)
    with pytest.raises(OutsideUnavailable, match="refused the PIN before"):
        keys.public_key("hot")

    assert "000000" not in str(caught.value)
    token.pin.write_text("000000")
    with (
        pytest.raises(SecretUnreadable, match="refuses the PIN"),
        TokenKeys.open(token.module, LABEL, token.pin),
    ):
        pytest.fail("it was opened")
    token.pin.write_text(PIN)
    with TokenKeys.open(token.module, LABEL, token.pin) as again:
        assert again.labels() == ["hot"]


def test_a_pin_that_others_may_read_is_not_used(token: SoftToken) -> None:
    token.pin.chmod(0o644)

    with (
        pytest.raises(SecretUnreadable, match="others may read it"),
        TokenKeys.open(token.module, LABEL, token.pin),
    ):
        pytest.fail("it was opened")


@pytest.mark.parametrize(
    ("module", "label"), [(None, "another"), (Path("/no/such/module.so"), LABEL)]
)
def test_a_token_or_module_that_is_not_there_is_unavailable(
    token: SoftToken, module: Path | None, label: str
) -> None:
    with (
        pytest.raises(OutsideUnavailable, match="does not answer"),
        TokenKeys.open(module or token.module, label, token.pin),
    ):
        pytest.fail("it was opened")


@pytest.mark.parametrize("label", ["", "x" * 65, "a\nb"])
def test_a_label_is_short_and_printable(keys: TokenKeys, label: str) -> None:
    with pytest.raises(BadInput, match="1 to 64 printable letters"):
        keys.make_key(label)


# What tokens say, read strictly.

SECRET = PrivateKey(b"\x07" * 32)
POINT = SECRET.public_key.format(compressed=False)


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(POINT, id="bare point"),
        pytest.param(b"\x04\x41" + POINT[:-1], id="cut"),
        pytest.param(b"\x04\x41" + POINT + b"\0", id="longer"),
        pytest.param(b"\x03\x41" + POINT, id="bit string"),
        pytest.param(b"\x04\x41" + POINT[:-1] + bytes([POINT[-1] ^ 1]), id="off the curve"),
        pytest.param(b"\x04\x21" + SECRET.public_key.format(), id="compressed"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_a_public_key_in_another_form_is_refused(encoded: bytes) -> None:
    with pytest.raises(SecretUnreadable):
        unwrap_point(encoded)


def test_a_wrapped_point_is_unwrapped() -> None:
    assert unwrap_point(b"\x04\x41" + POINT) == POINT


def test_the_parity_is_found_and_a_high_s_turned() -> None:
    for digest in DIGESTS:
        signed = SECRET.sign_recoverable(digest, hasher=None)
        low = Signature(
            int.from_bytes(signed[:32], "big"), int.from_bytes(signed[32:64], "big"), signed[64]
        )
        high = signed[:32] + (CURVE_ORDER - low.s).to_bytes(32, "big")

        assert read_signature(signed[:64], POINT, digest) == low
        assert read_signature(high, POINT, digest) == low
        assert low_s(low.r, CURVE_ORDER - low.s, low.y_parity ^ 1) == low


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(bytes(64), id="zeros"),
        pytest.param(b"\xff" * 64, id="beyond the order"),
        pytest.param(SECRET.sign_recoverable(DIGESTS[1], hasher=None)[:64], id="another digest"),
        pytest.param(SECRET.sign_recoverable(DIGESTS[0], hasher=None), id="65 bytes"),
        pytest.param(
            PrivateKey(b"\x08" * 32).sign_recoverable(DIGESTS[0], hasher=None)[:64],
            id="another key",
        ),
    ],
)
def test_what_is_no_signature_of_the_key_is_never_used(raw: bytes) -> None:
    with pytest.raises(OutsideUnavailable, match="no signature by this key"):
        read_signature(raw, POINT, DIGESTS[0])
