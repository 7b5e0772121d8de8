"""Argon2id at its library's recommended cost, off the event loop, for known and unknown addresses alike."""

import asyncio
import secrets
from dataclasses import dataclass, field

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

_AT_ONCE = 2
_ONE_TIME_ALPHABET = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_ONE_TIME_LENGTH = 20


@dataclass(slots=True)
class Passwords:
    """Hashes and checks passwords, a few at a time: each takes 64 MiB."""

    hasher: PasswordHasher = field(default_factory=PasswordHasher)
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    decoy: str = ""

    def __post_init__(self) -> None:
        self.decoy = self.hasher.hash(secrets.token_urlsafe())

    async def hash(self, password: str) -> str:
        """The Argon2id hash to keep."""
        async with self.turns:
            return await asyncio.to_thread(self.hasher.hash, password)

    async def matches(self, kept: str | None, password: str) -> bool:
        """Whether the password is the kept one. Where none is kept it takes as long, and isn't."""
        async with self.turns:
            return await asyncio.to_thread(self._verify, kept or self.decoy, password) and kept is not None

    def _verify(self, kept: str, password: str) -> bool:
        try:
            return self.hasher.verify(kept, password)
        except VerifyMismatchError:
            return False


def one_time_password() -> str:
    """A random password that is easy to copy by eye: 114 bits, no characters that look alike."""
    return "".join(secrets.choice(_ONE_TIME_ALPHABET) for _ in range(_ONE_TIME_LENGTH))
