"""The stack's own certificate authority and the certificate of each principal.

A principal's whole subject `CN=<name>,OU=<kind>,O=flip` decides who it is on the bus, so the kind can't be forged by
choosing a name. Keys are EC P-256; every file is readable by its owner alone.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flip_local.credentials import write_private
from flip_local.layout import HUB_SERVICES, Layout

BROKER = "broker.kafka"
ADMIN = "admin.hub"
GATEWAY = "gateway.tls"
KINDS = ("service", "trust", "admin", "broker")
LOCAL_NAMES = ("localhost", "127.0.0.1")
_LIFETIME = dt.timedelta(days=90)
_RENEW_BEFORE = dt.timedelta(days=7)
_CA_LIFETIME = dt.timedelta(days=3650)


def principals(layout: Layout) -> tuple[str, ...]:
    """Everyone who speaks on the bus: the broker, its administrator, each service and each Trust."""
    services = (*HUB_SERVICES, "trainer-node")
    return (BROKER, ADMIN, *(f"service.{name}" for name in services), *(f"trust.{code}" for code in layout.trusts))


def create(layout: Layout) -> None:
    """Make the authority and every certificate that is missing or about to end; leave the others as they are."""
    write_private(layout.ca_key, _pem_key(ec.generate_private_key(ec.SECP256R1())))
    ca_key = serialization.load_pem_private_key(layout.ca_key.read_bytes(), password=None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    if not layout.ca.exists():
        write_private(layout.ca, _pem(_authority(ca_key)))
    authority = x509.load_pem_x509_certificate(layout.ca.read_bytes())
    for principal in principals(layout):
        kind, name = principal.split(".", 1)
        hosts = LOCAL_NAMES if principal == BROKER else ()
        _issue(layout.certificate(principal), _subject(name, kind), hosts, authority, ca_key)
    _issue(layout.certificate(GATEWAY), _subject("localhost", "gateway"), LOCAL_NAMES, authority, ca_key)
    for signing_key in (layout.signing_key, layout.ledger_key):
        write_private(signing_key, _pem_key(ed25519.Ed25519PrivateKey.generate()))


def _issue(
    path: Path,
    subject: x509.Name,
    hosts: Iterable[str],
    authority: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
) -> None:
    """One PEM file: key, certificate, CA, in the order that Kafka's keystore wants."""
    if path.exists():
        if x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc > _now() + _RENEW_BEFORE:
            return
        path.unlink()
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _leaf(subject, key.public_key(), list(hosts), authority, ca_key)
    write_private(path, _pem_key(key) + _pem(certificate) + _pem(authority))


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    subject = _subject("local authority", "ca")
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = _builder(subject, subject, key.public_key(), key, _CA_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())


def _leaf(
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    hosts: list[str],
    authority: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
    builder = _builder(subject, authority.subject, public_key, ca_key, _LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(name) for name in hosts]), critical=False)
    return builder.sign(ca_key, hashes.SHA256())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    ca_key: ec.EllipticCurvePrivateKey,
    lifetime: dt.timedelta,
) -> x509.CertificateBuilder:
    start = _now() - dt.timedelta(minutes=5)
    authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + lifetime)
        # Strict verifiers refuse a chain without both key identifiers.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(authority_id, critical=False)
    )


def _subject(name: str, kind: str) -> x509.Name:
    parts = ((NameOID.ORGANIZATION_NAME, "flip"), (NameOID.ORGANIZATIONAL_UNIT_NAME, kind), (NameOID.COMMON_NAME, name))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_key(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
