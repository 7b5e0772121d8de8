"""What those who run a service do about its record keeping: at the hub as an admin, at a Trust as its operator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

Ask = Callable[..., Any]
"""Asks with a method, a path and what httpx takes beside them; answers what came back, parsed."""

HUB_SERVICES = ("auth", "projects", "cohort", "imaging", "files", "scheduler", "audit")


@dataclass(frozen=True, slots=True)
class Operations:
    """One service's parked records, replays and refills. At the hub a net is named `trainer-node/<net>`."""

    ask: Ask
    service: str

    def parked(self, type_: str | None = None) -> list[dict[str, Any]]:
        """The keys that wait, by their first record, oldest first."""
        found: list[dict[str, Any]] = []
        while True:
            after = found[-1]["id"] if found else 0
            terms = {"after": after, "limit": 500, **({"type": type_} if type_ else {})}
            page = self._get("parked", params=terms)
            if not page:
                return found
            found += page

    def show(self, parked_id: int) -> dict[str, Any]:
        """A parked record: what it holds, why it waits, how often it was tried, how many wait behind it."""
        return self._get(f"parked/{parked_id}")

    def retry(self, parked_id: int) -> dict[str, Any]:
        """Try the first record of a key again; what waits behind it follows."""
        return self._post(f"parked/{parked_id}/retry")

    def retry_key(self, topic: str, key: str) -> dict[str, Any]:
        """Try a key again."""
        return self._post("parked/retry", {"topic": topic, "key": key})

    def retry_type(self, type_: str) -> dict[str, Any]:
        """Try every key again whose first record is of this type."""
        return self._post("parked/retry", {"type": type_})

    def discard(self, parked_id: int, because: str) -> dict[str, Any]:
        """Take the first record of a key out of the way, for good."""
        return self._post(f"parked/{parked_id}/discard", {"because": because})

    def refill(self) -> dict[str, Any]:
        """Hand the whole event log to a broker that lost its disk."""
        return self._post("refill")

    def rebuild(self, *, swap: bool = False) -> dict[str, Any]:
        """Have the projections rebuilt and compared; with `swap` they take the place of those that stand."""
        return self._post("rebuilds", {"swap": swap})

    def rebuilds(self) -> list[dict[str, Any]]:
        """The rebuilds, newest first."""
        return self._get("rebuilds")

    def rebuild_of(self, rebuild_id: UUID | str) -> dict[str, Any]:
        """One rebuild."""
        return self._get(f"rebuilds/{rebuild_id}")

    def _get(self, path: str, **more: Any) -> Any:
        return self.ask("GET", f"/api/{self.service}/operations/{path}", **more)

    def _post(self, path: str, body: Any = None) -> Any:
        return self.ask("POST", f"/api/{self.service}/operations/{path}", json=body)
