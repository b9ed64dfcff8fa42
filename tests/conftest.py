"""What every test gets: no thread and no port is left, and one way of drawing random examples.

`CI=1` draws the same examples each time, so that a red run can be repeated; without it new ones are tried.
"""

import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from deploy.demo.program import ports_given_back

settings.register_profile("local", deadline=None, max_examples=200)
settings.register_profile(
    "ci", settings.get_profile("local"), derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if os.environ.get("CI") else "local")

ENDING_SECONDS = 2.0
"""How long a thread that was told to end may take."""


@pytest.fixture(autouse=True)
def no_port_stays() -> Iterator[None]:
    with ports_given_back():
        yield


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    started = set(threading.enumerate()) - before
    for thread in started:
        thread.join(ENDING_SECONDS)
    left = {thread for thread in started if thread.is_alive()}
    assert not left, f"threads left alive: {left}"
