"""A key's life: ceremony, backup, drill, restoration; and that no secret of it gets out."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import secrets
import select
import subprocess
import sys
import termios
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from embit.bip32 import HDKey

from chain.bitcoin.derivation import derive_checked as derive_bitcoin
from chain.bitcoin.networks import MAIN, TEST
from chain.errors import DerivationDisagrees
from chain.keys.checked import derive_checked
from custody.signer import ceremony
from custody.signer.backends.ring import open_keys
from custody.signer.ceremony import (
    Made,
    Plan,
    change_kek,
    check_keystore,
    describe,
    drill,
    keep,
    make_kek,
    perform,
    read_transcript,
    restore,
)
from custody.signer.entropy import DICE
from custody.signer.hd_keys import PrivateNode
from custody.signer.keystore import read_keystore, unseal
from custody.signer.slip39 import combine, parse_scheme
from kernel.errors import BadInput, Refused, SecretUnreadable
from kernel.private_files import read_kek
from tests.custody.signer.softhsm import CONFIGURATION, LABEL, PIN, make_token

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
PEOPLE = ("ann", "ben", "cleo", "dora", "emil")
PLAN = Plan("hot-2026", (0, 2), parse_scheme("3of5"), PEOPLE)
REPOSITORY = Path(__file__).parents[3]
PATIENCE_S = 30


@pytest.fixture
def kek(tmp_path: Path) -> Path:
    make_kek(tmp_path / "kek", random=secrets.token_bytes)
    return tmp_path / "kek"


@pytest.fixture
def made(kek: Path) -> Made:
    return perform(PLAN, kek, random=secrets.token_bytes, now=NOW)


def words_of(made: Made, *holders: str) -> list[str]:
    return [share.words for share in made.shares if share.holder in holders]


def test_a_ceremony_gives_shares_a_keystore_and_a_record_of_the_same_keys(
    made: Made, kek: Path, tmp_path: Path
) -> None:
    keep(made, tmp_path / "keystore", tmp_path / "transcript")
    record = read_transcript(tmp_path / "transcript")
    seed = combine(words_of(made, "ann", "cleo", "emil"))

    assert record == made.transcript
    assert unseal(read_keystore(tmp_path / "keystore"), read_kek(kek)) == seed
    assert record.accounts == describe(seed, (0, 2))
    assert [note.holder for note in record.shares] == list(PEOPLE)
    assert (record.scheme, record.key_id) == ("3of5", "hot-2026")
    assert record.made_at == "2026-03-01T09:00:00.000Z"
    second = HDKey.from_seed(bytes(seed))
    for account in record.accounts:
        assert second.derive(account.path).to_public().to_base58() == account.xpub
        for path, address in account.addresses.items():
            branch, index = path.split("/")[-2:]
            place = int(branch), int(index)
            if account.path.startswith("m/44'"):
                assert derive_checked(account.xpub, *place) == address
            else:
                network = MAIN if account.path.startswith("m/84'/0'") else TEST
                derived = derive_bitcoin(account.xpub, *place, network=network, path=account.path)
                assert derived == address
    with open_keys([(tmp_path / "keystore", kek)]) as keys:
        for account in record.accounts:
            assert keys.account_xpub(account.path) == account.xpub


def test_two_ceremonies_give_two_seeds(kek: Path, made: Made) -> None:
    again = perform(PLAN, kek, random=secrets.token_bytes, now=NOW)

    assert again.transcript.accounts[0].xpub != made.transcript.accounts[0].xpub


def test_dice_are_mixed_in_and_recorded_without_being_shown(kek: Path) -> None:
    dice = "".join(random.Random(5).choices(DICE, k=120))
    made = perform(PLAN, kek, random=secrets.token_bytes, now=NOW, brought=[dice])

    assert made.transcript.entropy == ["operating system", "brought by people"]
    assert dice not in msgspec.json.encode(made.transcript).decode()
    with pytest.raises(BadInput, match="too few"):
        perform(PLAN, kek, random=secrets.token_bytes, now=NOW, brought=["1234"])


def test_a_drill_proves_the_backup_and_keeps_nothing(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))

    drilled = drill(
        made.transcript, words_of(made, "ben", "cleo", "dora"), random=secrets.token_bytes
    )

    assert drilled.holders == ("ben", "cleo", "dora")
    assert (drilled.xpubs, drilled.addresses) == (6, 18)
    assert list(place.iterdir()) == []


def test_a_drill_finds_a_record_that_is_of_other_keys(made: Made, kek: Path) -> None:
    other = perform(PLAN, kek, random=secrets.token_bytes, now=NOW)
    mixed = msgspec.structs.replace(made.transcript, accounts=other.transcript.accounts)
    address = msgspec.structs.replace(
        made.transcript.accounts[1],
        addresses={**made.transcript.accounts[1].addresses, "m/44'/60'/2'/0/0": "0x" + "11" * 20},
    )
    changed = msgspec.structs.replace(
        made.transcript,
        accounts=[made.transcript.accounts[0], address, *made.transcript.accounts[2:]],
    )
    words = words_of(made, "ann", "ben", "cleo")

    for record in (mixed, changed):
        with pytest.raises(Refused, match="has fingerprint"):
            drill(record, words, random=secrets.token_bytes)


def test_a_drill_refuses_shares_that_are_too_few_twice_or_of_others(made: Made, kek: Path) -> None:
    other = perform(PLAN, kek, random=secrets.token_bytes, now=NOW)
    two = words_of(made, "ann", "ben")

    with pytest.raises(BadInput, match="not exactly as many as are needed"):
        drill(made.transcript, two, random=secrets.token_bytes)
    with pytest.raises(BadInput, match="given twice"):
        drill(made.transcript, [*two, two[0]], random=secrets.token_bytes)
    with pytest.raises(BadInput, match="share 3 is none of this ceremony"):
        drill(made.transcript, [*two, *words_of(other, "cleo")], random=secrets.token_bytes)


def test_a_restored_keystore_signs_with_the_same_keys(
    made: Made, kek: Path, tmp_path: Path
) -> None:
    keep(made, tmp_path / "first", tmp_path / "transcript")
    make_kek(tmp_path / "other-kek", random=secrets.token_bytes)
    holders = restore(
        made.transcript,
        words_of(made, "ann", "dora", "emil"),
        tmp_path / "second",
        tmp_path / "other-kek",
        random=secrets.token_bytes,
    )

    assert holders == ("ann", "dora", "emil")
    path = "m/44'/60'/2'/1/0"
    with (
        open_keys([(tmp_path / "first", kek)]) as first,
        open_keys([(tmp_path / "second", tmp_path / "other-kek")]) as second,
    ):
        assert first.sign_digest(path, bytes(32)) == second.sign_digest(path, bytes(32))
    assert check_keystore(tmp_path / "second", tmp_path / "other-kek", made.transcript).accounts
    with pytest.raises(SecretUnreadable, match="does not open"):
        check_keystore(tmp_path / "second", kek)


def test_a_keystore_of_other_keys_is_found_by_the_transcript(
    made: Made, kek: Path, tmp_path: Path
) -> None:
    other = perform(PLAN, kek, random=secrets.token_bytes, now=NOW)
    keep(other, tmp_path / "keystore", tmp_path / "transcript")

    with pytest.raises(Refused, match="in the transcript"):
        check_keystore(tmp_path / "keystore", kek, made.transcript)


def test_nothing_is_ever_written_over(made: Made, kek: Path, tmp_path: Path) -> None:
    keep(made, tmp_path / "keystore", tmp_path / "transcript")

    with pytest.raises(Refused, match="is there already"):
        keep(made, tmp_path / "keystore", tmp_path / "other")
    with pytest.raises(Refused, match="is there already"):
        keep(made, tmp_path / "other", tmp_path / "transcript")
    with pytest.raises(Refused, match="is there already"):
        make_kek(kek, random=secrets.token_bytes)
    with pytest.raises(BadInput, match="no such folder"):
        keep(made, tmp_path / "no" / "keystore", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_kek_is_changed_through_files(made: Made, kek: Path, tmp_path: Path) -> None:
    keep(made, tmp_path / "keystore", tmp_path / "transcript")
    make_kek(tmp_path / "new", random=secrets.token_bytes)

    assert (
        change_kek(
            tmp_path / "keystore", kek, tmp_path / "new", random=secrets.token_bytes
        ).generation
        == 2
    )
    check_keystore(tmp_path / "keystore", tmp_path / "new", made.transcript)
    with pytest.raises(SecretUnreadable, match="does not open"):
        check_keystore(tmp_path / "keystore", kek)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"accounts": ()}, "1 to 32 different accounts"),
        ({"accounts": (1, 1)}, "1 to 32 different accounts"),
        ({"key_id": ""}, "a name of 1 to 64"),
        ({"holders": ("ann", "ben", "cleo", "dora", "../emil")}, "printable name"),
        ({"holders": PEOPLE[:4]}, "needs 5 different holders"),
    ],
)
def test_an_impossible_plan_is_refused(kek: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        perform(replace(PLAN, **changes), kek, random=secrets.token_bytes, now=NOW)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"kind": "causeway key ceremony"}'])
def test_what_is_no_transcript_is_said_to_be_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "t").write_text(content)

    with pytest.raises(BadInput, match="not a transcript"):
        read_transcript(tmp_path / "t")


def test_results_show_no_secret(made: Made) -> None:
    seed = combine(words_of(made, "ann", "ben", "cleo"))
    told = f"{made!r} {made} {made.shares!r} {made.sealed!r} {made.transcript!r}"

    assert seed.hex() not in told
    assert str(bytes(seed)) not in told
    for share in made.shares:
        assert share.words not in told
        assert " ".join(share.words.split()[4:8]) not in told


# As commands.


def causeway(*words: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "causeway", *words],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, **env},
        check=False,
        timeout=60,
    )


def test_the_commands_go_from_ceremony_to_drill_and_rotation_without_telling_a_secret(
    tmp_path: Path,
) -> None:
    where = {
        name: str(tmp_path / name) for name in ("kek", "keystore", "transcript", "new", "dice")
    }
    dice = "".join(random.Random(7).choices(DICE, k=100))
    Path(where["dice"]).touch(mode=0o600)
    Path(where["dice"]).write_text(dice)
    files = ["--keystore", where["keystore"], "--kek", where["kek"]]
    record = ["--transcript", where["transcript"]]
    people = [word for name in PEOPLE[:3] for word in ("--holder", name)]
    said = [causeway("custody", "keys", "new-kek", "--kek", where["kek"], "--json")]
    said.append(
        causeway(
            *("custody", "keys", "ceremony", *files, *record, "--scheme", "2of3", *people),
            *("--account", "0", "--entropy", where["dice"], "--shares-to", str(tmp_path), "--json"),
        )
    )
    shares = [path.read_text().strip() for path in sorted(tmp_path.glob("share-*.txt"))]
    two = "\n".join([shares[0], "", shares[2]]) + "\n"
    said += [
        causeway("custody", "keys", "drill", *record, "--json", stdin=two),
        causeway("custody", "keys", "drill", *record),
        causeway("custody", "keys", "new-kek", "--kek", where["new"]),
        causeway("custody", "keys", "rotate-kek", *files, "--new-kek", where["new"], "--json"),
        causeway("custody", "keys", "check", *files, *record),
    ]
    files[-1] = where["new"]
    said.append(causeway("custody", "keys", "check", *files, *record, "--json"))
    files[1] = str(tmp_path / "again")
    said.append(causeway("custody", "keys", "restore", *files, *record, stdin=two))
    said.append(causeway("custody", "keys", "restore", *files, *record, stdin=two))

    assert [one.returncode for one in said] == [0, 0, 0, 2, 0, 0, 2, 0, 0, 1], said
    assert all("Traceback" not in one.stderr for one in said)
    assert json.loads(said[2].stdout)["holders"] == "ann, cleo"
    assert json.loads(said[7].stdout)["transcript"] == "the same keys"
    seed = combine(shares[:2])
    told = "".join(one.stdout + one.stderr for one in said)
    told += Path(where["transcript"]).read_text() + Path(where["keystore"]).read_text()
    secret = [
        seed.hex(),
        dice,
        Path(where["kek"]).read_text().strip(),
        PrivateNode.from_seed(seed).secret.hex(),
        *shares,
    ]
    assert [one for one in secret if one in told] == []
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def test_without_a_terminal_shares_are_not_shown(tmp_path: Path) -> None:
    causeway("custody", "keys", "new-kek", "--kek", str(tmp_path / "kek"))
    made = causeway(
        *("custody", "keys", "ceremony", "--keystore", str(tmp_path / "k")),
        *("--kek", str(tmp_path / "kek"), "--transcript", str(tmp_path / "t")),
        *("--scheme", "2of2", "--holder", "ann", "--holder", "ben"),
    )

    assert made.returncode == 2
    assert "at a terminal" in made.stderr
    assert {item.name for item in tmp_path.iterdir()} == {"kek"}


class Terminal:
    """A person's terminal: what the program shows, and what is typed into it."""

    def __init__(self, *words: str) -> None:
        self.handle, theirs = pty.openpty()
        # A session of its own: the program must not find the terminal of whoever runs the tests.
        self.child = subprocess.Popen(
            [sys.executable, "-m", "causeway", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=REPOSITORY,
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = ""

    def wait_for(self, text: str) -> str:
        """Return what was shown up to *text*."""
        while text not in self.seen:
            ready, _, _ = select.select([self.handle], [], [], PATIENCE_S)
            assert ready, self.seen
            self.seen += os.read(self.handle, 4096).decode()
        shown, _, self.seen = self.seen.partition(text)
        return shown + text

    def type(self, text: str) -> None:
        os.write(self.handle, f"{text}\n".encode())

    def type_unseen(self, text: str) -> None:
        """Type once the terminal shows nothing of it: what comes before is thrown away."""
        until = time.monotonic() + PATIENCE_S
        while termios.tcgetattr(self.handle)[3] & termios.ECHO:
            assert time.monotonic() < until
            time.sleep(0.01)
        self.type(text)

    def end(self) -> tuple[int, str]:
        """Return the exit code, and the last words."""
        try:
            while more := os.read(self.handle, 4096):
                self.seen += more.decode()
        except OSError:
            pass  # Linux says the end of a terminal like this.
        os.close(self.handle)
        return self.child.wait(PATIENCE_S), self.seen


def read_share_at(terminal: Terminal, holder: str) -> list[str]:
    """Be the holder: look at the words, and clear the screen."""
    terminal.wait_for(f"{holder}, be alone at the screen; then press Enter")
    terminal.type("")
    shown = terminal.wait_for("Write them down; then press Enter")
    terminal.type("")
    return [
        word for _, word in sorted((int(n), w) for n, w in re.findall(r"(\d+) ([a-z]{4,8})", shown))
    ]


def answer(terminal: Terminal, words: list[str]) -> None:
    for _ in range(2):
        asked = re.findall(r"Word (\d+) from", terminal.wait_for("from your paper"))
        terminal.type_unseen(words[int(asked[-1]) - 1])


def test_each_holder_sees_their_own_words_and_reads_some_of_them_back(tmp_path: Path) -> None:
    make_kek(tmp_path / "kek", random=secrets.token_bytes)
    terminal = Terminal(
        *("custody", "keys", "ceremony", "--keystore", str(tmp_path / "k")),
        *("--kek", str(tmp_path / "kek"), "--transcript", str(tmp_path / "t")),
        *("--scheme", "2of2", "--holder", "ann", "--holder", "ben"),
    )
    ann = read_share_at(terminal, "ann")
    answer(terminal, ["wrong"] * 33)
    terminal.wait_for("These are not the words")
    assert read_share_at(terminal, "ann") == ann
    answer(terminal, ann)
    assert not (tmp_path / "k").exists()
    ben = read_share_at(terminal, "ben")
    answer(terminal, ben)
    code, last = terminal.end()

    assert code == 0, last
    assert len(ann) == len(ben) == 33
    assert combine([" ".join(ann), " ".join(ben)]) == unseal(
        read_keystore(tmp_path / "k"), read_kek(tmp_path / "kek")
    )
    assert " ".join(ben[4:8]) not in last

    drilled = Terminal("custody", "keys", "drill", "--transcript", str(tmp_path / "t"))
    for number, words in enumerate((ann, ben), start=1):
        drilled.wait_for(f"Share {number}")
        drilled.type_unseen(" ".join(words))
    code, last = drilled.end()
    assert code == 0, last
    assert "yes, and not kept" in last
    assert ann[5] not in last.split()


def test_a_key_is_made_on_a_token_by_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = make_token(tmp_path)
    env = {CONFIGURATION: str(token.configuration)}
    access = ["--module", str(token.module), "--token", LABEL, "--pin", str(token.pin), "--json"]
    made = causeway("custody", "keys", "token-key", *access, "--label", "hot", **env)
    listed = causeway("custody", "keys", "token-list", *access, **env)

    assert made.returncode == listed.returncode == 0, made.stderr + listed.stderr
    assert json.loads(listed.stdout) == [json.loads(made.stdout)]
    assert PIN not in made.stdout + made.stderr + listed.stdout + listed.stderr


def test_certificates_are_made_by_command(tmp_path: Path) -> None:
    words = ("custody", "keys", "certificates", "--host", "127.0.0.1", "--folder", str(tmp_path))
    made, again = causeway(*words, "--json"), causeway(*words)

    assert made.returncode == 0, made.stderr
    assert Path(json.loads(made.stdout)["client_key"]).stat().st_mode & 0o777 == 0o600
    assert again.returncode == 1
    assert "is there already" in again.stderr


def test_keys_that_two_libraries_see_differently_are_never_used(
    kek: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong:
        @staticmethod
        def from_seed(_: bytes) -> object:
            return HDKey.from_seed(bytes(32))

    monkeypatch.setattr(ceremony, "HDKey", Wrong)
    with pytest.raises(DerivationDisagrees, match="by one library and"):
        perform(PLAN, kek, random=secrets.token_bytes, now=NOW)
