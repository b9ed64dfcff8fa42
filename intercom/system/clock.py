"""Tells how far the wall clock can be believed. Rule: it only looks, and never waits."""

import time
from pathlib import Path

SYNCHRONIZED, FREE, UNKNOWN = "synchronized", "free", "unknown"
SIGN = Path("/run/systemd/timesync/synchronized")


def wall_milliseconds() -> int:
    """Milliseconds since 1970 in UTC, by whatever the clock shows."""
    return time.time_ns() // 1_000_000


def clock_source(sign: Path = SIGN) -> str:
    """Say whether a time server has set the wall clock since the boot, has not yet, or nobody can tell.

    Args:
        sign: the file that systemd-timesyncd makes when it sets the clock, in a folder that it makes when it
            starts (systemd-timesyncd.service(8)). Other time services are not asked: unknown.
    """
    if sign.exists():
        return SYNCHRONIZED
    return FREE if sign.parent.exists() else UNKNOWN
