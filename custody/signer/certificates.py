"""A private certificate authority for the signer's mutual TLS: for trials and small houses.

A house that has an authority of its own uses that one; what the two certificates must say is the
same: the signer's names its host (serverAuth), the application's a name the signer lets in
(clientAuth). These keys encrypt a connection; they sign no payment.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from custody.signer.transport import CLIENT_NAME, TlsFiles
from kernel.errors import BadInput
from kernel.private_files import write_new_file

DAYS: Final = 365
DAYS_MAX: Final = 3650
CLOCK_SKEW: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"Pair({self.certificate.subject.rfc4514_string()!r}, …)"

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write ``name.pem`` and ``name.key`` (mode 0600), never over existing files."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        write_new_file(
            key, self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        write_new_file(certificate, self.certificate.public_bytes(Encoding.PEM))
        return certificate, key


def make_authority(now: datetime, *, days: int = DAYS) -> Pair:
    """Return a new certificate authority that may sign end certificates and nothing below."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Causeway signer authority")
    builder = _builder(name, name, key, now, days)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(of_authority=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), False)
        .sign(key, SHA256())
    )
    return Pair(certificate, key)


def issue_signer(authority: Pair, host: str, now: datetime, *, days: int = DAYS) -> Pair:
    """Return the certificate of a signer that is dialled as *host* (a DNS name or an address)."""
    return _issue(authority, host, ExtendedKeyUsageOID.SERVER_AUTH, now, days)


def issue_client(
    authority: Pair, now: datetime, *, name: str = CLIENT_NAME, days: int = DAYS
) -> Pair:
    """Return the certificate of an application that the signer lets in as *name*."""
    return _issue(authority, name, ExtendedKeyUsageOID.CLIENT_AUTH, now, days)


def write_house(folder: Path, host: str, now: datetime, *, days: int = DAYS) -> dict[str, TlsFiles]:
    """Make an authority and both certificates in *folder*; return the files of each side.

    The authority's key is not kept: nobody can add a third party to these two afterwards.
    """
    if not 0 < days <= DAYS_MAX:
        raise BadInput(f"a certificate is valid for 1 to {DAYS_MAX} days")
    authority = make_authority(now, days=days)
    issued = {
        "signer": issue_signer(authority, host, now, days=days),
        "client": issue_client(authority, now, days=days),
    }
    anchor = folder / "authority.pem"
    write_new_file(anchor, authority.certificate.public_bytes(Encoding.PEM))
    return {name: TlsFiles(anchor, *pair.write(folder, name)) for name, pair in issued.items()}


def _issue(authority: Pair, name: str, purpose: ObjectIdentifier, now: datetime, days: int) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate.subject
    certificate = (
        _builder(_name(name), issuer, key, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(of_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .sign(authority.key, SHA256())
    )
    return Pair(certificate, key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _usage(*, of_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not of_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=of_authority,
        crl_sign=of_authority,
        encipher_only=False,
        decipher_only=False,
    )
