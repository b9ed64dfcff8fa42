"""Which hours of a button it is, by the clock on the wall.

Rule: pure functions of a moment. Who asks again at every full minute is right through the change to summer
time and back, and after the clock was set.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import get_args

from intercom.settings.schema import Button, Day, Hours

DAYS: Sequence[str] = get_args(Day)
LONGEST_LOOK_SECONDS = 10.0
"""How soon it is noticed at the latest that the clock was set."""


def hours_at(buttons: Sequence[Button], moment: datetime) -> dict[str, int]:
    """For each button that has hours for this moment the number of the first of them, from 0."""
    return {
        button.name: number
        for button in buttons
        for number, hours in reversed(list(enumerate(button.hours)))
        if _covers(hours, moment)
    }


def until_next_look(moment: datetime) -> float:
    """Seconds until the hours may be others: a full minute, or as soon as somebody may have set the clock."""
    return min(60 - moment.second - moment.microsecond / 1e6, LONGEST_LOOK_SECONDS)


def _covers(hours: Hours, moment: datetime) -> bool:
    time = f"{moment:%H:%M}"
    today, yesterday = DAYS[moment.weekday()], DAYS[moment.weekday() - 1]
    if hours.begin < hours.to:
        return today in hours.days and hours.begin <= time < hours.to
    return (today in hours.days and time >= hours.begin) or (yesterday in hours.days and time < hours.to)
