"""What a FLIP hub says when it refuses."""

from collections.abc import Mapping
from typing import Any

import httpx


class Problem(Exception):
    """A refusal (RFC 9457): a stable `code`, `facts` that name fields or state, and the `request_id` in the logs."""

    def __init__(self, status: int, code: str, detail: str, facts: Mapping[str, Any], request_id: str) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.status = status
        self.code = code
        self.detail = detail
        self.facts = facts
        self.request_id = request_id

    @classmethod
    def of(cls, response: httpx.Response) -> "Problem":
        """The problem that a response of 400 or more tells."""
        request_id = response.headers.get("x-request-id", "")
        try:
            body: dict[str, Any] = response.json()
        except ValueError:
            return cls(response.status_code, "no-answer", response.reason_phrase, {}, request_id)
        known = {"type", "title", "status", "code", "detail", "instance"}
        facts = {name: value for name, value in body.items() if name not in known}
        return cls(response.status_code, body.get("code", "unknown"), body.get("detail", ""), facts, request_id)


class Unreachable(Exception):
    """The hub gave no answer."""
