"""How a message about an alert reaches people: a signed web hook, or mail.

A web hook is a POST of JSON. Its headers are ``Causeway-Delivery`` (the message's id: the same one
may come twice) and, where the house has a secret, ``Causeway-Signature: t=<unix seconds>,v1=<hex>``,
HMAC-SHA256 (RFC 2104) of ``<t>.<body>``. Any 2xx is taken for received; everything else, redirects
included, is not. Mail goes to one server over SMTP (RFC 5321), by STARTTLS where it is offered, with
the message's id as its Message-ID (RFC 5322).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from typing import Final

import aiohttp

from kernel.clock import Clock, iso, to_unix_ms
from kernel.errors import OutsideUnavailable
from reporting.alerts.model import ChannelKind, Delivery

TIMEOUT_S: Final = 10.0
"""Of a web hook in all, and of a mail server's single answer."""
MAIL_S: Final = 14.0
"""Of a mail in all, from the connection on: a server may be slow without ever being silent."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Post:
    """What sends: a web session, the secret of web hooks, and a mail server.

    Attributes:
        secret: signs web hooks; None: they are not signed.
        smtp: host and port of the mail server; None: there is none.
        sender: the address that mail comes from.
        mail_s: so many seconds a mail may take in all.
    """

    session: aiohttp.ClientSession
    clock: Clock
    secret: bytes | None = None
    smtp: tuple[str, int] | None = None
    sender: str = "causeway@localhost"
    mail_s: float = MAIL_S

    async def send(self, item: Delivery) -> None:
        """Hand the message over.

        Raises:
            OutsideUnavailable: it is not known to have arrived.
        """
        if item.channel.kind is ChannelKind.WEBHOOK:
            await self._post(item)
        else:
            await asyncio.to_thread(self._mail, item)

    async def _post(self, item: Delivery) -> None:
        body = json.dumps(document_of(item), sort_keys=True, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json", "Causeway-Delivery": str(item.id)}
        if self.secret is not None:
            headers["Causeway-Signature"] = sign(self.secret, body, self.clock.now())
        try:
            async with self.session.post(
                item.channel.target,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            ) as answer:
                if 200 <= answer.status < 300:
                    return
                # Nothing of what it says: many servers repeat the address, which may hold a token.
                raise OutsideUnavailable(f"channel {item.channel.name} answers {answer.status}")
        except (aiohttp.ClientError, TimeoutError) as error:
            what = type(error).__name__
            raise OutsideUnavailable(f"channel {item.channel.name}: {what}") from error

    def _mail(self, item: Delivery) -> None:
        if self.smtp is None:
            raise OutsideUnavailable(
                f"channel {item.channel.name} needs a mail server",
                remedy="Name one in the house file: [alerts] smtp",
            )
        try:
            with smtplib.SMTP(timeout=TIMEOUT_S) as server, _limited(server, self.mail_s):
                server.connect(*self.smtp)
                server.ehlo()
                if server.has_extn("starttls"):
                    server.starttls(context=ssl.create_default_context())
                server.send_message(mail_of(item, self.sender))
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise OutsideUnavailable(f"channel {item.channel.name}: {error}") from error


@contextmanager
def _limited(server: smtplib.SMTP, seconds: float) -> Iterator[None]:
    """Cut the line when *seconds* are over, whoever is still talking."""
    timer = threading.Timer(seconds, _cut, [server])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _cut(server: smtplib.SMTP) -> None:
    if server.sock is not None:
        with suppress(OSError):
            server.sock.shutdown(socket.SHUT_RDWR)


def sign(secret: bytes, body: bytes, at: datetime) -> str:
    """Return the signature header of a web hook sent at *at*."""
    seconds = to_unix_ms(at) // 1_000
    digest = hmac.new(secret, b"%d." % seconds + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"


def document_of(item: Delivery) -> Mapping[str, object]:
    """Return what a web hook says."""
    alert = item.alert
    return {
        "delivery": str(item.id),
        "alert": str(alert.id),
        "event": "cleared" if item.is_clear else "raised",
        "kind": str(alert.kind),
        "key": alert.key,
        "text": alert.text,
        "level": item.level,
        "book": alert.book,
        "raised_at": iso(alert.raised_at),
        "cleared_at": None if alert.cleared_at is None else iso(alert.cleared_at),
        "acknowledged_by": alert.acknowledged_by,
    }


def mail_of(item: Delivery, sender: str) -> EmailMessage:
    """Return what a mail says."""
    alert = item.alert
    what = str(alert.kind).replace("_", " ")
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = item.channel.target
    mail["Subject"] = f"[causeway] {'over: ' if item.is_clear else ''}{what} (level {item.level})"
    mail["Message-ID"] = f"<{item.id}@causeway>"
    mail["Auto-Submitted"] = "auto-generated"
    ending = (
        "It is over; there is nothing to do."
        if item.is_clear
        else f"Take it on:  causeway alerts ack {alert.id} --reason ... --as ... --key ..."
    )
    mail.set_content(f"{alert.text}\n\nsince {iso(alert.raised_at)}, key {alert.key}\n{ending}\n")
    return mail
