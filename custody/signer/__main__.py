"""``python -m custody.signer``: start the signer, or make its keystore.

::

    python -m custody.signer init --keystore FILE --kek FILE [--key-id NAME] < seed in hexadecimal
    python -m custody.signer --socket PATH --keystore FILE --kek FILE --rules FILE --store FILE

The seed is read from standard input, never from an argument, which other users could see. When the
signer listens it prints one line of JSON: ``{"ready": true, "socket": …, "key_id": …, "pid": …}``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import secrets
import signal
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Final

import orjson

from custody.signer.hd_keys import SEED_BYTES_MAX, PrivateNode
from custody.signer.keystore import read_kek, read_keystore, seal, unseal, write_keystore
from custody.signer.rules_file import read_rules
from custody.signer.service import Signer, listening
from custody.signer.store import Memory
from kernel.errors import BadInput, CausewayError
from kernel.parent import wait_for_parent_end
from kernel.telemetry import configure_logging

SEED_TEXT_MAX: Final = 2 * SEED_BYTES_MAX + 2


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parser().parse_args(arguments)
    configure_logging("info", as_json=True)
    try:
        if options.command == "init":
            make_keystore(options)
        else:
            asyncio.run(serve(options))
    except CausewayError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    top = argparse.ArgumentParser(prog="python -m custody.signer", description=__doc__)
    top.formatter_class = argparse.RawDescriptionHelpFormatter
    top.add_argument("command", nargs="?", choices=["serve", "init"], default="serve")
    top.add_argument("--keystore", type=Path, required=True)
    top.add_argument("--kek", type=Path, required=True, help="64 hexadecimal digits, mode 0600")
    top.add_argument("--key-id", default="hot", help="init: the name of the key")
    top.add_argument("--socket", type=Path, help="serve: where to listen")
    top.add_argument("--rules", type=Path, help="serve: pinned operators, chains and limits")
    top.add_argument("--store", type=Path, help="serve: what was signed (default: KEYSTORE.signed)")
    top.add_argument("--parent-pipe", action="store_true", help="end when standard input closes")
    return top


def make_keystore(options: argparse.Namespace) -> None:
    """Seal the seed that standard input gives."""
    text = sys.stdin.read(SEED_TEXT_MAX).strip()
    try:
        seed = bytes.fromhex(text)
    except ValueError as error:
        raise BadInput("the seed is not hexadecimal") from error
    PrivateNode.from_seed(seed)
    sealed = seal(seed, read_kek(options.kek), key_id=options.key_id, random=secrets.token_bytes)
    write_keystore(options.keystore, sealed)


async def serve(options: argparse.Namespace) -> None:
    """Answer until a signal comes or the parent is gone."""
    if options.socket is None or options.rules is None:
        raise BadInput("the signer needs --socket and --rules")
    # A core dump would write the key to disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sealed = read_keystore(options.keystore)
    root = PrivateNode.from_seed(unseal(sealed, read_kek(options.kek)))
    store = options.store or options.keystore.with_name(f"{options.keystore.name}.signed")
    memory = Memory.open(store)
    try:
        signer = Signer(sealed.key_id, root, read_rules(options.rules), memory)
        async with listening(signer, options.socket):
            say_ready(options.socket, sealed.key_id)
            await wait_for_end(parent_pipe=options.parent_pipe)
    finally:
        memory.close()


def say_ready(path: Path, key_id: str) -> None:
    """Tell whoever started us, in one line, that questions can be asked."""
    line = {"ready": True, "socket": str(path), "key_id": key_id, "pid": os.getpid()}
    sys.stdout.write(orjson.dumps(line).decode() + "\n")
    sys.stdout.flush()


async def wait_for_end(*, parent_pipe: bool) -> None:
    """Return at SIGTERM or SIGINT, and when standard input closes if *parent_pipe*."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    if not parent_pipe:
        await over.wait()
        return
    async with asyncio.TaskGroup() as tasks:
        parent = tasks.create_task(_set_after(wait_for_parent_end(), over))
        await over.wait()
        parent.cancel()


async def _set_after(ending: Awaitable[None], over: asyncio.Event) -> None:
    await ending
    over.set()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
