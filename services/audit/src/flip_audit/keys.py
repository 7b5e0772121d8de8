"""The key that signs checkpoints and exports."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from flip_contracts import ledger
from flip_contracts.ledger import Statement


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 key."""

    private: Ed25519PrivateKey

    @classmethod
    def of(cls, file: Path) -> "SigningKey":
        """The key in a PEM file. Raises OSError, and ValueError where it is no Ed25519 key.

        It is never made here: a ledger that quietly goes on with another key looks like one that was forged.
        """
        key = load_pem_private_key(file.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError(f"{file} holds no Ed25519 key")
        return cls(key)

    @property
    def public(self) -> bytes:
        """The 32 bytes of the public half."""
        return self.private.public_key().public_bytes_raw()

    @property
    def id(self) -> str:
        """How statements name the key."""
        return ledger.key_id(self.public)

    def sign(self, statement: Statement) -> tuple[bytes, bytes]:
        """The statement's bytes and their signature."""
        encoded = statement.encode()
        return encoded, self.private.sign(encoded)


def as_pem(public_key: bytes) -> bytes:
    """The 32 bytes of a public key as auditors keep it."""
    return Ed25519PublicKey.from_public_bytes(public_key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
