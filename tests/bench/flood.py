"""Five hundred calls a second from a stranger, and a visitor who presses the bell meanwhile."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from deploy.demo.phone import Phone
from deploy.demo.program import free_port
from deploy.demo.scenarios import flood
from deploy.demo.sipp import Sipp
from deploy.demo.site import Site
from tests.bench import proc
from tests.bench.callers import station
from tests.bench.rows import Row

RATE = 500
SECONDS = 6
STRANGER = "127.0.0.2"


def measure(folder: Path) -> Iterator[Row]:
    with ExitStack() as parts:
        site = parts.enter_context(Site(folder / "site", users={"door": "secret", "flat1": "secret"}))
        phone = parts.enter_context(Phone(folder / "phone", site.account("flat1")))
        phone.wait_registered()
        port = free_port()
        ours = parts.enter_context(
            station(folder / "door", site.account("door"), more=f"[sip]\nport = {port}\n")
        )
        ours.wait_registered()
        pid = ours.program.pid
        memory = proc.rss_kb(pid)
        invites = flood(f"sip:door@127.0.0.1:{port}")
        begun = Sipp(
            folder / "flood", invites, f"127.0.0.1:{port}", calls=RATE * SECONDS, rate=RATE, source=STRANGER
        )
        with begun as stranger:
            threading.Event().wait(SECONDS / 2)
            pressed = time.monotonic()
            ours.press()
            waited = phone.wait_ringing().at - pressed
            sent = stranger.wait().begun
        grown = proc.rss_kb(pid) - memory
        alive = ours.program.running and ours.status()["accounts"][0]["state"] == "registered"
        offered = ours.program.log.read_text().count("CallOffered(")
    yield Row("flood: INVITEs of a stranger", sent, "")
    yield Row("flood: stations lost", not alive, "", 0)
    yield Row("flood: calls that reached the rules", offered, "", 0)
    yield Row("flood: press to the phone's ringing", waited, "s", 2)
    yield Row("flood: RSS grown by", grown / 1024, "MB")
