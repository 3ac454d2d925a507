"""``causeway custody keys token-…``: keys that a PKCS#11 token holds, and the wallets of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import AsJson, Reason, clock, one_of, read, run, show, show_one, write
from app.cli.custody_signer import Endpoint, Tls, signer_client
from app.cli.operators import As, Key, credentials

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from registry.model import Proposal, Wallet

Module = Annotated[Path, typer.Option("--module", help="The token maker's PKCS#11 library.")]
TokenLabel = Annotated[str, typer.Option("--token", help="The token's label.")]
Pin = Annotated[Path, typer.Option("--pin", help="File of mode 0600 with the user's PIN.")]


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    for command in (token_key, token_list, token_wallet, token_check):
        app.command(command.__name__.replace("_", "-"))(command)


def token_key(
    *,
    module: Module,
    token: TokenLabel,
    pin: Pin,
    label: Annotated[str, typer.Option("--label", help="The new key's name on the token.")],
    as_json: AsJson = False,
) -> None:
    """Make a key on a PKCS#11 token, which never gives it out, and print its address.

    Example: `causeway custody keys token-key --module /usr/lib/softhsm/libsofthsm2.so --token
    causeway --pin token.pin --label hot`
    """
    from custody.signer.ceremony import make_token_key

    address = make_token_key(module, token, pin, label)
    show_one("Key on the token", {"label": label, "address": address}, as_json=as_json)


def token_list(*, module: Module, token: TokenLabel, pin: Pin, as_json: AsJson = False) -> None:
    """List the signing keys of a PKCS#11 token; each one signs a test hash first.

    Example: `causeway custody keys token-list --module /usr/lib/softhsm/libsofthsm2.so --token
    causeway --pin token.pin`
    """
    from custody.signer.ceremony import list_token_keys

    rows = sorted(list_token_keys(module, token, pin).items())
    show(f"Keys on {token}", ("label", "address"), rows, as_json=as_json)


def token_wallet(
    wallet: Annotated[str, typer.Argument(help="Code of the new wallet.")],
    *,
    label: Annotated[str, typer.Option("--label", help="The key's name on the token.")],
    chain: Annotated[str, typer.Option("--chain", help="Code of the chain.")],
    signer: Endpoint,
    tls: Tls = None,
    owner: Annotated[str, typer.Option("--owner", help="house, client or client:ID.")] = "house",
    purpose: Annotated[str, typer.Option("--purpose", help="hot or settlement.")] = "hot",
    reason: Reason,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Ask the signer for a token key's public half, and propose a wallet of it.

    Another administrator asks the signer again (`token-check`) and approves it
    (`causeway registry approve`). The wallet has one address, and no deposit addresses.

    Example: `causeway custody keys token-wallet vault --label hot --chain evm --signer
    /run/causeway/signer.sock --reason "key on the new module" --as ada --key ada.key`
    """
    from custody.token_wallets import ask_token_wallet
    from registry.model import WalletPurpose

    who = credentials(as_, key)
    wanted = one_of(WalletPurpose, purpose, "purpose of a wallet")
    client = signer_client(signer, tls)
    record = run(
        lambda: ask_token_wallet(
            client, wallet, chain=chain, owner=owner, purpose=wanted, label=label
        )
    )

    async def work(conn: AsyncConnection) -> Proposal:
        from registry.changes import propose

        me = await who.person(conn)
        return await propose(conn, record, by=me.code, reason=reason, now=clock().now())

    made = write(work)
    facts = {"proposal": str(made.id), "state": str(made.state), "wallet": made.code}
    show_one("Wallet of a token's key", facts | _token_facts(record), as_json=as_json)


def token_check(
    wallet: Annotated[str, typer.Argument(help="Code of the wallet, registered or proposed.")],
    *,
    signer: Endpoint,
    tls: Tls = None,
    as_json: AsJson = False,
) -> None:
    """Hold a wallet's public key to what the signer's token says now.

    Example: `causeway custody keys token-check vault --signer /run/causeway/signer.sock`
    """
    from custody.token_wallets import require_token_key

    record = read(lambda conn: _wallet(conn, wallet))
    client = signer_client(signer, tls)
    run(lambda: require_token_key(client, record))
    show_one("The signer has this key", {"wallet": wallet} | _token_facts(record), as_json=as_json)


async def _wallet(conn: AsyncConnection, code: str) -> Wallet:
    """Return a wallet as it is registered, else as it is proposed."""
    from registry.errors import UnknownRecord
    from registry.model import ProposalState, RecordKind, Wallet
    from registry.queries import get_wallet, list_proposals
    from registry.records import from_content

    try:
        return await get_wallet(conn, code)
    except UnknownRecord:
        for item in reversed(await list_proposals(conn, ProposalState.PROPOSED)):
            if (item.kind, item.code) == (RecordKind.WALLET, code):
                found = from_content(item.kind, item.content)
                assert isinstance(found, Wallet)
                return found
        raise


def _token_facts(wallet: Wallet) -> dict[str, str]:
    from chain.keys.single import address_of_key

    public = wallet.token_public_key
    return {
        "label": wallet.token_key,
        "public_key": public,
        "address": address_of_key(bytes.fromhex(public)),
    }
