"""``causeway custody keys``: the life of signing keys, on the machine that the signer runs on.

No command takes a secret as an argument, which other users could see: shares come from the terminal
without being shown, or from standard input; KEKs and PINs from files of mode 0600.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli import custody_tokens
from app.cli.common import (
    AsJson,
    Reason,
    clock,
    emit,
    show_one,
    write,
)
from app.cli.operators import Approver, ApproverKey, As, Key, credentials
from kernel.errors import BadInput, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from custody.signer.ceremony import Transcript
    from custody.signer.slip39 import PersonalShare

keys = typer.Typer(help="Signing keys: ceremony, backup, drill, tokens.", no_args_is_help=True)
custody_tokens.register(keys)

Keystore = Annotated[Path, typer.Option("--keystore", help="The keystore's file.")]
Kek = Annotated[Path, typer.Option("--kek", help="The key-encryption key's file, mode 0600.")]
TranscriptFile = Annotated[Path, typer.Option("--transcript", help="The ceremony's record.")]

ASKED_WORDS: Final = 2
TRIES_MAX: Final = 3
SHARES_BYTES_MAX: Final = 65_536
CLEAR_SCREEN_AND_HISTORY: Final = "\033[H\033[2J\033[3J"


@keys.command("new-kek")
def new_kek(*, kek: Kek, as_json: AsJson = False) -> None:
    """Make a key-encryption key in a new file.

    Example: `causeway custody keys new-kek --kek hot.kek`
    """
    import secrets

    from custody.signer.ceremony import make_kek

    name = make_kek(kek, random=secrets.token_bytes)
    show_one("Key-encryption key", {"kek": name, "file": str(kek)}, as_json=as_json)


@keys.command()
def ceremony(
    *,
    keystore: Keystore,
    kek: Kek,
    transcript: TranscriptFile,
    scheme: Annotated[
        str, typer.Option(help="How many shares give the seed: 3of5; or 2; board:2of3; office:3of5")
    ],
    holder: Annotated[
        list[str], typer.Option("--holder", help="Who gets the next share; once for each person.")
    ],
    key_id: Annotated[str, typer.Option("--key-id", help="The key's name.")] = "hot",
    account: Annotated[
        list[int] | None, typer.Option("--account", help="Account that the seed is for (again).")
    ] = None,
    entropy: Annotated[
        Path | None, typer.Option("--entropy", help="File with rolls of dice, mixed in.")
    ] = None,
    shares_to: Annotated[
        Path | None,
        typer.Option("--shares-to", help="Write shares into this folder instead of showing them."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a seed: shown to its holders as shares, one by one, and sealed into a keystore.

    Each holder writes the words down alone at the screen and reads some of them back. Keystore and
    transcript are written when the last share is with its holder.

    Example: `causeway custody keys ceremony --keystore hot.json --kek hot.kek --transcript
    hot.transcript.json --scheme 2of3 --holder ann --holder ben --holder cleo --account 0`
    """
    import secrets

    from custody.signer.ceremony import Plan, keep, perform, require_new
    from custody.signer.slip39 import parse_scheme
    from kernel.private_files import read_private_file

    _guard_memory()
    require_new(keystore, transcript)
    if shares_to is None and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise BadInput(
            "shares are shown to people at a terminal", remedy="Or write them with --shares-to"
        )
    brought = [] if entropy is None else [read_private_file(entropy).decode("ascii", "replace")]
    plan = Plan(key_id, tuple(account or [0]), parse_scheme(scheme), tuple(holder))
    made = perform(
        plan,
        kek,
        random=secrets.token_bytes,
        now=clock().now(),
        brought=brought,
    )
    if shares_to is None:
        for share in made.shares:
            _hand_over(share)
    else:
        _write_shares(made.shares, shares_to)
    keep(made, keystore, transcript)
    _show_transcript(made.transcript, as_json=as_json)


@keys.command()
def drill(
    *,
    transcript: TranscriptFile,
    as_json: AsJson = False,
) -> None:
    """Prove that shares give the ceremony's keys back; nothing of them is kept.

    Shares are asked for one by one and not shown; or come from standard input, one on each line.

    Example: `causeway custody keys drill --transcript hot.transcript.json`
    """
    import secrets

    from custody.signer import ceremony as life

    _guard_memory()
    record = life.read_transcript(transcript)
    drilled = life.drill(record, _ask_shares(record), random=secrets.token_bytes)
    facts = {
        "key": drilled.key_id,
        "restored": "yes, and not kept",
        "scheme": record.scheme,
        "holders": ", ".join(drilled.holders),
        "xpubs_equal": str(drilled.xpubs),
        "addresses_equal": str(drilled.addresses),
    }
    show_one("Restore drill", facts, as_json=as_json)


@keys.command()
def restore(
    *,
    transcript: TranscriptFile,
    keystore: Keystore,
    kek: Kek,
    as_json: AsJson = False,
) -> None:
    """Make a keystore from shares again, if they give the keys of the transcript.

    Example: `causeway custody keys restore --transcript hot.transcript.json --keystore again.json
    --kek hot.kek`
    """
    import secrets

    from custody.signer import ceremony as life

    _guard_memory()
    record = life.read_transcript(transcript)
    words = _ask_shares(record)
    holders = life.restore(record, words, keystore, kek, random=secrets.token_bytes)
    facts = {"key": record.key_id, "file": str(keystore), "holders": ", ".join(holders)}
    show_one("Restored keystore", facts, as_json=as_json)


@keys.command("rotate-kek")
def rotate_kek(
    *,
    keystore: Keystore,
    kek: Kek,
    new_kek: Annotated[Path, typer.Option("--new-kek", help="The KEK that replaces it.")],
    as_json: AsJson = False,
) -> None:
    """Wrap a keystore with another key-encryption key; the old one opens it no more.

    Safe to run again after a crash. A signer that runs goes on with the keys it has read.

    Example: `causeway custody keys rotate-kek --keystore hot.json --kek hot.kek --new-kek new.kek`
    """
    import secrets

    from custody.signer.ceremony import change_kek

    sealed = change_kek(keystore, kek, new_kek, random=secrets.token_bytes)
    facts = {"key": sealed.key_id, "generation": str(sealed.generation), "kek": sealed.kek_id}
    show_one("Keystore", facts, as_json=as_json)


@keys.command()
def check(
    *,
    keystore: Keystore,
    kek: Kek,
    transcript: Annotated[
        Path | None, typer.Option("--transcript", help="Compare the keys with this record.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Open a keystore and compare its keys with the ceremony's transcript.

    Example: `causeway custody keys check --keystore hot.json --kek hot.kek --transcript
    hot.transcript.json`
    """
    from custody.signer import ceremony as life

    record = None if transcript is None else life.read_transcript(transcript)
    sealed = life.check_keystore(keystore, kek, record)
    facts = {
        "key": sealed.key_id,
        "accounts": ", ".join(map(str, sealed.accounts)) or "all",
        "generation": str(sealed.generation),
        "kek": sealed.kek_id,
        "transcript": "not compared" if record is None else "the same keys",
    }
    show_one("Keystore", facts, as_json=as_json)


@keys.command()
def retire(
    path: Annotated[str, typer.Argument(help="Account m/44'/60'/0', or a token's label.")],
    *,
    successor: Annotated[str, typer.Option(help="Account or label that replaces it.")],
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    as_json: AsJson = False,
) -> None:
    """Retire a key for ever, as two administrators say; it signs only moves to its successor.

    Example: `causeway custody keys retire "m/44'/60'/0'" --successor "m/44'/60'/3'"
    --reason "on its day" --as ada --key ada.key --approver ben --approver-key ben.key`
    """
    one, two = credentials(as_, key), credentials(approver, approver_key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.key_retirement import retire_key, retirement_bytes

        people = (await one.person(conn), await two.person(conn))
        payload = retirement_bytes(path, successor, reason)
        message = await retire_key(
            conn,
            path,
            successor,
            signatures={person.code: person.sign(payload) for person in people},
            reason=reason,
            now=clock().now(),
        )
        return {"path": path, "successor": successor, "message": message.digest}

    show_one("Retired key, for the signer", write(work), as_json=as_json)


@keys.command()
def certificates(
    *,
    host: Annotated[str, typer.Option("--host", help="Name or address the signer is dialled by.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where the new files go.")],
    days: Annotated[int, typer.Option("--days", help="How long they are valid.")] = 365,
    as_json: AsJson = False,
) -> None:
    """Make a private authority and the certificates of both ends of mutual TLS.

    For trials and small houses: the authority's own key is not kept.

    Example: `causeway custody keys certificates --host signer.internal --folder tls`
    """
    from custody.signer.certificates import write_house

    if not folder.is_dir():
        raise BadInput("there is no such folder", where=str(folder))
    house = write_house(folder, host, clock().now(), days=days)
    facts = {"authority": str(house["signer"].authority), "days": str(days)}
    for side, files in house.items():
        facts |= {f"{side}_certificate": str(files.certificate), f"{side}_key": str(files.key)}
    show_one("Certificates", facts, as_json=as_json)


def _guard_memory() -> None:
    from custody.signer.hardening import harden
    from kernel.telemetry import configure_logging

    configure_logging("warning")
    harden()


def _hand_over(share: PersonalShare) -> None:
    """Show a share to its holder alone, until some of its words were read back."""
    import secrets

    numbered = list(enumerate(share.words.split(), start=1))
    asked = sorted(secrets.SystemRandom().sample(range(1, len(numbered) + 1), ASKED_WORDS))
    for _ in range(TRIES_MAX):
        typer.prompt(
            f"{share.holder}, be alone at the screen; then press Enter",
            default="",
            show_default=False,
        )
        typer.echo(CLEAR_SCREEN_AND_HISTORY, nl=False)
        typer.echo(f"Share {share.number} of {share.group}, for {share.holder}\n")
        for start in range(0, len(numbered), 3):
            row = numbered[start : start + 3]
            typer.echo("".join(f"{number:>4} {word:<12}" for number, word in row))
        typer.prompt("\nWrite them down; then press Enter", default="", show_default=False)
        typer.echo(CLEAR_SCREEN_AND_HISTORY, nl=False)
        answers = [
            typer.prompt(f"Word {number} from your paper", hide_input=True) for number in asked
        ]
        if [answer.strip().lower() for answer in answers] == [
            numbered[number - 1][1] for number in asked
        ]:
            return
        typer.echo("These are not the words; look at them again.")
    raise Refused(
        f"{share.holder} did not read the words back",
        remedy="Nothing was written: begin the ceremony again, with new shares",
    )


def _write_shares(shares: Sequence[PersonalShare], folder: Path) -> None:
    from kernel.private_files import write_new_file

    if not folder.is_dir():
        raise BadInput("there is no such folder", where=str(folder))
    for share in shares:
        name = f"share-{share.group}-{share.number}-{share.holder}.txt"
        write_new_file(folder / name, f"{share.words}\n".encode())


def _ask_shares(record: Transcript) -> list[str]:
    """Return shares without showing them: typed one by one, or the lines of standard input."""
    if not sys.stdin.isatty():
        return [line for line in sys.stdin.read(SHARES_BYTES_MAX).splitlines() if line.strip()]
    typer.echo(f"Shares of {record.key_id}, {record.scheme}. An empty one ends the list.")
    words: list[str] = []
    while len(words) < len(record.shares):
        answer = typer.prompt(
            f"Share {len(words) + 1}", hide_input=True, default="", show_default=False
        )
        if not answer.strip():
            break
        words.append(answer)
    return words


def _show_transcript(record: Transcript, *, as_json: bool) -> None:
    if as_json:
        import msgspec

        emit(msgspec.to_builtins(record))
        return
    facts = {
        "key": record.key_id,
        "made_at": record.made_at,
        "kek": record.kek_id,
        "scheme": record.scheme,
        "entropy": ", ".join(record.entropy),
        "holders": ", ".join(f"{note.holder} ({note.check})" for note in record.shares),
    }
    for account in record.accounts:
        facts[f"{account.path} fingerprint"] = account.fingerprint
        facts[f"{account.path} xpub"] = account.xpub
        facts |= account.addresses
    show_one("Key ceremony", facts, as_json=False)
