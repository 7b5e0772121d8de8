"""Access tokens (Ed25519, 5 minutes) and refresh tokens (random, kept as hashes)."""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from flip_chassis.access import ALGORITHM, ISSUER, Claims
from joserfc import jwt
from joserfc.jwk import KeyParameters, OKPKey

ACCESS_LASTS = timedelta(minutes=5)
_USE: KeyParameters = {"use": "sig", "alg": ALGORITHM}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The key that signs access tokens."""

    key: OKPKey

    @classmethod
    def of(cls, path: Path) -> "SigningKey":
        """The key in this PEM file, made where there is none. Raises ValueError where it is no Ed25519 key."""
        if not path.exists():
            _make(path)
        key = OKPKey.import_key(path.read_bytes(), _USE)
        if not key.is_private or key.curve_name != "Ed25519":
            raise ValueError(f"{path} holds no private Ed25519 key")
        key.ensure_kid()
        return cls(key)

    def jwks(self) -> Mapping[str, Any]:
        """The public key, as other services fetch it."""
        return {"keys": [self.key.as_dict(private=False)]}

    def access_token(self, claims: Claims, now: datetime) -> str:
        """A token that proves who the user is."""
        body = {
            "iss": ISSUER,
            "sub": str(claims.user_id),
            "sid": str(claims.session_id),
            "uv": claims.user_version,
            "exp": int((now + ACCESS_LASTS).timestamp()),
        }
        return jwt.encode({"alg": ALGORITHM, "kid": self.key.kid}, body, self.key, algorithms=[ALGORITHM])


def _make(path: Path) -> None:
    """Write a new key that only its owner reads; where another process is first, its key stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(OKPKey.generate_key("Ed25519").as_pem(private=True))
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()


def refresh_token() -> str:
    """A new refresh token: 256 random bits."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    """What is kept of a refresh token; it is random, so a plain digest suffices."""
    return sha256(token.encode()).digest()
