"""A thousand visits in a row with our own SIP server: none lost, nothing left behind."""

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from deploy.demo.program import ProgramError
from deploy.demo.scenarios import answers
from deploy.demo.sipp import Sipp
from deploy.demo.site import Site
from intercom.control import client
from tests.bench import proc
from tests.bench.callers import Held, station
from tests.bench.rows import Row, slope

VISITS = 1000
WARM_UP_VISITS = 200
MOST_VISITS = 10_000
MOST_LOST = 10
STEP_SECONDS = 5.0
SETTLE_SECONDS = 0.01
CONTACT_REST_SECONDS = 0.02


class Visits:
    """Visits one after another: press, answer, hang up."""

    def __init__(self, door: Held) -> None:
        self.taken = self.lost = 0
        self._door = door
        self._steps: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._clock = threading.Event()
        threading.Thread(target=self._follow, daemon=True).start()
        self._steps.get(timeout=STEP_SECONDS)  # it says that it watches

    def take(self) -> None:
        """One visit; a lost one is counted and left behind.

        Raises:
            ProgramError: too many were lost to go on.
        """
        self.taken += 1
        try:
            self._door.press()
            self._wait("Calling")
            self._door.rest()
            self._wait("Talking")
            client.ask(self._door.socket, "POST", "/hangup", {})
            self._wait("Concluded")
        except (queue.Empty, client.Denied):
            self.lost += 1
            self._door.rest()
            if self.lost == MOST_LOST:
                raise ProgramError(f"{MOST_LOST} visits are lost:\n{self._door.program.tail()}") from None
        self._clock.wait(CONTACT_REST_SECONDS)

    def calm(self) -> None:
        """Block until the station has come to rest."""
        self._wait("Idle")

    def _follow(self) -> None:
        for step in client.follow(self._door.socket, "/watch"):
            self._steps.put(step)

    def _wait(self, state: str) -> None:
        while self._steps.get(timeout=STEP_SECONDS).get("after") != state:
            pass


def measure(folder: Path) -> Iterator[Row]:
    with ExitStack() as parts:
        site = parts.enter_context(Site(folder / "site", users={"door": "secret", "flat1": "secret"}))
        flat = parts.enter_context(Sipp(folder / "flat", answers(), calls=MOST_VISITS))
        site.place("flat1", flat.contact)
        ours = station(folder / "door", site.account("door"), settle_seconds=SETTLE_SECONDS)
        door = parts.enter_context(Held(ours))
        door.wait_registered()
        pid = door.program.pid
        visits = Visits(door)

        for _ in range(WARM_UP_VISITS):
            visits.take()
        visits.calm()
        held = proc.threads(pid), proc.descriptors(pid)
        memory: list[float] = []
        begun = time.monotonic()
        for _ in range(VISITS):
            visits.take()
            memory.append(proc.rss_kb(pid))
        seconds = time.monotonic() - begun
        visits.calm()
        more = proc.threads(pid) - held[0], proc.descriptors(pid) - held[1]
    yield Row("soak: visits", visits.taken, "")
    yield Row("soak: visits lost", visits.lost, "", 0)
    yield Row("soak: time of a visit", seconds / VISITS * 1000, "ms")
    yield Row("soak: RSS at the end", memory[-1] / 1024, "MB")
    yield Row("soak: RSS slope over the last thousand", slope(memory), "kB/visit", 2)
    yield Row("soak: threads more", more[0], "", 0)
    yield Row("soak: descriptors more", more[1], "", 0)
