"""The settings of the scheduler."""

from datetime import timedelta
from typing import Annotated

from flip_chassis.settings import Settings
from pydantic import Field, PositiveInt


class SchedulerSettings(Settings):
    """How long a silent net keeps its run, and how often a run is tried, beside what every service has."""

    service = "scheduler"

    lease: timedelta = timedelta(seconds=60)
    """A net that says nothing for this long has lost the run that it holds."""
    most_tries: PositiveInt = 5
    """Attempts in a row that may end without a further round before the run fails."""
    pause: Annotated[timedelta, Field(ge=timedelta())] = timedelta(seconds=15)
    """A run rests for so long once two attempts in a row have ended so, and twice as long each time from then on."""
    aging: Annotated[timedelta, Field(gt=timedelta())] = timedelta(days=1)
    """A run that has waited this long counts as one priority higher."""
