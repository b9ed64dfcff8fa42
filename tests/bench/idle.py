"""Idle and registered with our own SIP server: how often a process wakes, what it costs, what it holds."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from deploy.demo.phone import Phone
from deploy.demo.site import Site
from tests.bench import proc
from tests.bench.callers import Bare, station
from tests.bench.rows import Row

SECONDS = 30.0
CALM_SECONDS = 3.0
USERS = dict.fromkeys(("door", "bare", "flat1"), "secret")


def measure(folder: Path) -> Iterator[Row]:
    with ExitStack() as parts:
        site = parts.enter_context(Site(folder / "site", users=USERS))
        # One after another for the memory: what two share would be counted by half.
        with Bare(folder / "bare", site.account("bare")) as bare:
            bare.wait_registered()
            pss = {"bare pjsua2": proc.pss_mb(bare.program.pid)}
        ours = parts.enter_context(station(folder / "door", site.account("door")))
        ours.wait_registered()
        pss["station"] = proc.pss_mb(ours.program.pid)
        bare = parts.enter_context(Bare(folder / "bare2", site.account("bare")))
        bare.wait_registered()
        phone = parts.enter_context(Phone(folder / "phone", site.account("flat1")))
        phone.wait_registered()
        pss["baresip"] = proc.pss_mb(phone.program.pid)

        pids = {"station": ours.program.pid, "bare pjsua2": bare.program.pid, "baresip": phone.program.pid}
        clock = threading.Event()
        clock.wait(CALM_SECONDS)
        before = {name: proc.effort(pid) for name, pid in pids.items()}
        clock.wait(SECONDS)
        spent = {name: proc.effort(pid) - before[name] for name, pid in pids.items()}
    for name, effort in spent.items():
        limits = (5, 0.2, 45) if name == "station" else (None, None, None)
        yield Row(f"idle, {name}: goes to sleep", effort.switches / SECONDS, "/s", limits[0])
        yield Row(f"idle, {name}: CPU", effort.cpu_s / SECONDS * 100, "% of a core", limits[1])
        yield Row(f"idle, {name}: PSS", pss[name], "MB", limits[2])
