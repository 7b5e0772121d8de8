"""Makes the kits of a net: one SuperLink, one SuperNode a Trust, one admin for the hub's driver.

    python -m flip_flower.provision --net net1 --trusts KCH,UCLH --port 8002 --output DIR

`DIR` then holds `server/`, `admin/` and one folder a Trust. The server is known by its certificate, a Trust by its
key, which the server must know. A second call changes nothing, and one with more Trusts adds theirs, which the server
learns when it starts. The authority behind its certificate is kept in `DIR/authority/`, which stays at the hub. A Trust
that reaches the server through a forwarder is told its port: `--through KCH=9002`.
"""

from __future__ import annotations

import argparse
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from flip_nnunet.files import replace_file
from flip_nnunet.forwarders import check_forwarders, parse_forwarder

from flip_flower.kit import AUTHORITY_CERTIFICATE, KEY, SERVER_CERTIFICATE, TRUST_KEYS, Net

SERVER_KIT, ADMIN_KIT = "server", "admin"

_AUTHORITY = "authority"
_VALID = timedelta(days=3650)
_NET_NAME = re.compile(r"[a-z][a-z0-9]{0,15}")
_TRUST_CODE = re.compile(r"[A-Z][A-Z0-9]{1,11}")
_LOOPBACK = "127.0.0.1"
_CURVE = ec.SECP384R1()
"""The curve that Flower asks of a node's key."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A net and the Trusts in it. Raises ValueError for what is not well formed.

    forwarders: the port at which a Trust reaches the server's name, for those for which it is another.
    """

    net: Net
    trusts: tuple[str, ...]
    forwarders: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NET_NAME.fullmatch(self.net.name):
            raise ValueError(f"net: {self.net.name!r} must match {_NET_NAME.pattern}")
        if not self.trusts or len(set(self.trusts)) < len(self.trusts):
            raise ValueError("trusts: at least one, each once")
        for trust in self.trusts:
            if not _TRUST_CODE.fullmatch(trust):
                raise ValueError(f"trusts: {trust!r} must match {_TRUST_CODE.pattern}")
        for name, port in (("port", self.net.port), ("control_port", self.net.control_port)):
            if not 0 < port < 65536:
                raise ValueError(f"{name}: {port} must lie between 1 and 65535")
        if self.net.port == self.net.control_port:
            raise ValueError("control_port: must not be the port that Trusts connect to")
        check_forwarders(self.forwarders, self.trusts)


def provision(plan: Plan, output: Path) -> None:
    """Write the kits of a net under `output`, or bring them up to date.

    Raises ValueError if a Trust that has a kit is missing in `plan`: its key would stay known, so a Trust leaves a net
    only with the net.
    """
    output = output.resolve()
    gone = sorted(_provisioned_trusts(output) - set(plan.trusts))
    if gone:
        raise ValueError(f"trusts: {', '.join(gone)} cannot leave the net {plan.net.name}; make a new net instead")
    for name in (_AUTHORITY, SERVER_KIT, ADMIN_KIT, *plan.trusts):
        (output / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = _authority(output / _AUTHORITY, plan.net)
    _server_certificate(output / SERVER_KIT, plan.net, output / _AUTHORITY)
    for name in (SERVER_KIT, ADMIN_KIT, *plan.trusts):
        replace(plan.net, port=plan.forwarders.get(name, plan.net.port)).write(output / name)
        replace_file(output / name / AUTHORITY_CERTIFICATE, authority)
    known = output / SERVER_KIT / TRUST_KEYS
    known.mkdir(exist_ok=True)
    for trust in plan.trusts:
        replace_file(known / f"{trust}.pem", _public(_key(output / trust / KEY)))


def _provisioned_trusts(output: Path) -> set[str]:
    return {key.stem for key in (output / SERVER_KIT / TRUST_KEYS).glob("*.pem")}


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in `path`, made if there is none; in OpenSSH's format, which Flower reads."""
    if not path.is_file():
        made = ec.generate_private_key(_CURVE).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        replace_file(path, made, private=True)
    key = serialization.load_ssh_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path}: is not a key of an elliptic curve")
    return key


def _public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _authority(folder: Path, net: Net) -> bytes:
    """The certificate of the net's own authority."""
    key, path = _key(folder / KEY), folder / AUTHORITY_CERTIFICATE
    if not path.is_file():
        name = _name(f"FLIP net {net.name}")
        builder = (
            _certificate(name, name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
        )
        replace_file(path, _signed(builder, key))
    return path.read_bytes()


def _server_certificate(kit: Path, net: Net, authority: Path) -> None:
    """The server's key, and a certificate for its name and, as its own processes see it, for the loopback address."""
    path = kit / SERVER_CERTIFICATE
    if path.is_file():
        return
    issuer = x509.load_pem_x509_certificate((authority / AUTHORITY_CERTIFICATE).read_bytes())
    issuer_key = _key(authority / KEY)
    key = ec.generate_private_key(_CURVE)
    names = [_general_name(net.host), _general_name(_LOOPBACK)]
    builder = (
        _certificate(_name(net.host), issuer.subject, key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    replace_file(kit / KEY, pem, private=True)
    replace_file(path, _signed(builder, issuer_key))


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _VALID)
    )


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    return builder.sign(key, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flip_flower.provision", description="Make the kits of a net.")
    parser.add_argument("--net", required=True, help="the net's name, such as net1")
    parser.add_argument("--trusts", required=True, help="codes of its Trusts, separated by commas")
    parser.add_argument("--port", required=True, type=int, help="where its server listens to the Trusts")
    parser.add_argument("--control-port", type=int, help="where it listens to the hub; the next port if not given")
    parser.add_argument("--host", default="localhost", help="the server's name, as the Trusts resolve it")
    parser.add_argument(
        "--through",
        action="append",
        default=[],
        type=parse_forwarder,
        metavar="TRUST=PORT",
        help="the port at which a Trust reaches the server's name, if it is another",
    )
    parser.add_argument("--output", required=True, type=Path, help="the folder of the kits")
    given = parser.parse_args()
    control_port = given.port + 1 if given.control_port is None else given.control_port
    try:
        net = Net(given.net, given.host, given.port, control_port)
        provision(Plan(net, tuple(given.trusts.split(",")), dict(given.through)), given.output)
    except ValueError as refused:
        parser.error(str(refused))


if __name__ == "__main__":
    main()
