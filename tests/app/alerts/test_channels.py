"""How alerts reach people: over real sockets, to a web server and a mail server of the tests."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web

from app.alerts.channels import Post
from kernel.clock import ManualClock
from kernel.errors import BadInput, OutsideUnavailable
from reporting.alerts.model import (
    Alert,
    AlertKind,
    AlertState,
    Channel,
    ChannelKind,
    Delivery,
)

NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
SECRET = b"a secret of the house"


def delivery(target: str, kind: ChannelKind = ChannelKind.WEBHOOK) -> Delivery:
    alert = Alert(
        id=UUID(int=1),
        book=1,
        kind=AlertKind.STATEMENT_MISSING,
        key="main/7",
        text="statement 7 of main is missing: 6 was followed by 8",
        state=AlertState.RAISED,
        level=2,
        level_since=NOW,
        raised_at=NOW,
        last_seen_at=NOW,
    )
    channel = Channel(name="people", kind=kind, target=target)
    return Delivery(
        id=UUID(int=2), alert=alert, level=2, is_clear=False, channel=channel, attempts=0, fence=1
    )


@dataclass
class Listener:
    """A web server that keeps what it was sent, and answers what it is told to."""

    url: str = ""
    status: int = 204
    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.taken.append((dict(request.headers), await request.read()))
        headers = {"Location": "/elsewhere"} if self.status == 302 else {}
        # As many servers do, it repeats what it was asked for.
        text = None if self.status == 204 else f"cannot POST {request.rel_url}"
        return web.Response(status=self.status, headers=headers, text=text)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    made = Listener()
    app = web.Application()
    app.router.add_post("/hook", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


@pytest.fixture
async def post() -> AsyncIterator[Post]:
    async with aiohttp.ClientSession() as session:
        yield Post(session=session, clock=ManualClock(NOW), secret=SECRET)


async def test_a_web_hook_carries_the_alert_and_a_signature_of_its_very_bytes(
    listener: Listener, post: Post
) -> None:
    await post.send(delivery(listener.url))

    ((headers, body),) = listener.taken
    stamp, digest = headers["Causeway-Signature"].removeprefix("t=").split(",v1=")
    expected = hmac.new(SECRET, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert digest == expected
    assert int(stamp) == int(NOW.timestamp())
    assert headers["Causeway-Delivery"] == str(UUID(int=2))
    said = json.loads(body)
    assert said["event"] == "raised"
    assert said["text"] == "statement 7 of main is missing: 6 was followed by 8"
    assert said["level"] == 2


@pytest.mark.parametrize("status", [302, 400, 500])
async def test_anything_but_received_is_not_received(
    listener: Listener, post: Post, status: int
) -> None:
    listener.status = status

    with pytest.raises(OutsideUnavailable, match=f"people answers {status}") as caught:
        await post.send(delivery(f"{listener.url}?token=very-secret"))

    assert "very-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1.example.com/hook",
        "http://localhost@example.com/hook",
        "http://localhost.example.com/hook",
        "http://example.com/hook",
        "ftp://127.0.0.1/hook",
        "http://[::1",
        "https://",
    ],
)
def test_an_address_that_only_looks_like_this_machine_is_an_open_line(target: str) -> None:
    with pytest.raises(BadInput, match="open line"):
        Channel(name="people", kind=ChannelKind.WEBHOOK, target=target)


async def test_nobody_there_is_said_without_the_address_which_may_hold_a_token(post: Post) -> None:
    with pytest.raises(OutsideUnavailable) as caught:
        await post.send(delivery("http://127.0.0.1:9/hook?token=very-secret"))

    assert "very-secret" not in str(caught.value)


@dataclass
class MailServer:
    """So much of RFC 5321 as takes one mail, or refuses its receiver."""

    port: int = 0
    refuses: bool = False
    is_talking: bool = False
    is_left: asyncio.Event = field(default_factory=asyncio.Event)
    mails: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self.is_talking:
            # Never silent for long, and never at an end.
            writer.write(b"2")
            await asyncio.sleep(0.01)
            if reader.at_eof():
                self.is_talking = False
                self.is_left.set()
        writer.write(b"220 test\r\n")
        while line := (await reader.readline()).decode().strip():
            verb = line.split()[0].upper()
            if verb == "DATA":
                writer.write(b"354 go on\r\n")
                lines = []
                while (text := (await reader.readline()).decode()) != ".\r\n":
                    lines.append(text)
                self.mails.append("".join(lines))
            if verb == "QUIT":
                writer.write(b"221 bye\r\n")
                break
            refused = verb == "RCPT" and self.refuses
            writer.write(b"550 nobody of that name\r\n" if refused else b"250 ok\r\n")
        writer.close()


@pytest.fixture
async def mail_server() -> AsyncIterator[MailServer]:
    made = MailServer()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    await server.wait_closed()


async def test_a_mail_says_what_is_wrong_and_how_to_take_it_on(
    mail_server: MailServer, post: Post
) -> None:
    item = delivery("treasury@example.com", ChannelKind.EMAIL)

    await replace(post, smtp=("127.0.0.1", mail_server.port)).send(item)

    (mail,) = mail_server.mails
    assert "Subject: [causeway] statement missing (level 2)" in mail
    assert f"Message-ID: <{UUID(int=2)}@causeway>" in mail
    assert "statement 7 of main is missing: 6 was followed by 8" in mail
    assert f"causeway alerts ack {UUID(int=1)}" in mail


async def test_a_mail_that_is_refused_has_not_arrived(mail_server: MailServer, post: Post) -> None:
    mail_server.refuses = True
    item = delivery("nobody@example.com", ChannelKind.EMAIL)

    with pytest.raises(OutsideUnavailable, match="nobody of that name"):
        await replace(post, smtp=("127.0.0.1", mail_server.port)).send(item)


async def test_mail_without_a_server_says_where_to_name_one(post: Post) -> None:
    with pytest.raises(OutsideUnavailable, match=r"\[alerts\] smtp"):
        await post.send(delivery("treasury@example.com", ChannelKind.EMAIL))


async def test_a_mail_server_that_never_comes_to_the_point_is_cut_off(
    mail_server: MailServer, post: Post
) -> None:
    mail_server.is_talking = True
    sender = replace(post, smtp=("127.0.0.1", mail_server.port), mail_s=0.2)

    with pytest.raises(OutsideUnavailable, match="people"):
        await sender.send(delivery("treasury@example.com", ChannelKind.EMAIL))

    await asyncio.wait_for(mail_server.is_left.wait(), 10)


async def test_what_an_alert_says_gets_into_no_header_of_a_mail(
    mail_server: MailServer, post: Post
) -> None:
    item = delivery("treasury@example.com", ChannelKind.EMAIL)
    said = "x\r\nBcc: thief@example.com\r\n\r\n.\r\nRCPT TO:<thief@example.com>\r\n"
    spoiled = replace(item, alert=replace(item.alert, text=said, key=said))

    await replace(post, smtp=("127.0.0.1", mail_server.port)).send(spoiled)

    (mail,) = mail_server.mails
    head = mail.partition("\r\n\r\n")[0]
    assert "thief" not in head
    assert "..\r\n" in mail
