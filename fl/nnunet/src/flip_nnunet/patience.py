"""How long the hub waits for a site that lives but does not answer, measured by what the other sites took."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Patience(BaseModel):
    """Once half of the sites have answered, the others have `factor` times as long as the slowest of those took.

    They have `least_s` (seconds) at any rate. A site that is the only one asked is waited for as long as its framework
    does: there is nothing to compare it with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 10.0
    least_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3600.0


class Clock:
    """Runs while sites work at one operation; `now` is monotonic, in seconds."""

    def __init__(self, patience: Patience, asked: int, now: float) -> None:
        self._patience = patience
        self._asked = asked
        self._began = now
        self._took: list[float] = []

    def answered(self, now: float) -> None:
        """One more site has answered."""
        self._took.append(now - self._began)

    def is_over(self, now: float) -> bool:
        """Whether those that have not answered are waited for no longer."""
        if not self._took or 2 * len(self._took) < self._asked:
            return False
        return now - self._began > max(self._patience.least_s, self._patience.factor * self._took[-1])
