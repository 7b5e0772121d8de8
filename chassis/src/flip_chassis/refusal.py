"""What a user may not do, said in one way: a stable code, the facts that explain it, and an HTTP status."""

from typing import Any, ClassVar


class Refused(Exception):
    """The state doesn't allow what was asked, and nothing was changed.

    `code` is stable; `facts` name the field or the state.
    """

    status: ClassVar[int] = 409

    def __init__(self, code: str, detail: str = "", /, **facts: Any) -> None:
        super().__init__(code, detail, facts)
        self.code = code
        self.detail = detail
        self.facts = facts

    def __str__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self.facts.items())
        return f"{self.code} ({told})" if told else self.code


class Invalid(Refused):
    """What was sent is wrong in itself."""

    status = 422


class NotFound(Refused):
    """There is no such thing, or the one who asks may not know of it."""

    status = 404


class Forbidden(Refused):
    """The one who asks lacks the permission."""

    status = 403


class Unauthenticated(Refused):
    """Nobody we know asks."""

    status = 401


class Throttled(Refused):
    """Too many requests of this kind; `retry_after_s` is in the facts."""

    status = 429


class Behind(Refused):
    """This service has not heard yet of what the caller already knows; `retry_after_s` is in the facts."""

    status = 503


def require(condition: object, code: str, detail: str = "", /, **facts: Any) -> None:
    """Refuse with `code` unless `condition` holds."""
    if not condition:
        raise Refused(code, detail, **facts)
