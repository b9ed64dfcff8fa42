"""From the press, after the settle time, to the first byte of the INVITE on the wire."""

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from deploy.demo.sound import VirtualCard
from tests.bench.callers import Bare, Baresip, Caller, Held, station
from tests.bench.registrar import Registrar
from tests.bench.rows import Row, percentile

PRESSES = 100
PAUSE_SECONDS = 0.1


def measure(folder: Path) -> Iterator[Row]:
    with ExitStack() as parts:
        registrar = parts.enter_context(Registrar())
        card = parts.enter_context(VirtualCard(folder / "card"))
        door, flat = registrar.account("door"), registrar.account("flat1")
        bare = parts.enter_context(Bare(folder / "bare", door, poll_ms=1))
        ours = parts.enter_context(Held(station(folder / "door", door), outcome_seconds=0))
        with_sound = station(folder / "sound", door, device="door", environment=card.environment)
        sounding = parts.enter_context(Held(with_sound, outcome_seconds=0))
        baresip = parts.enter_context(Baresip(folder / "baresip", flat))
        for program in (bare, ours, sounding, baresip):
            program.wait_registered()
        callers: dict[str, Caller] = {
            "bare pjsua2": bare,
            "station": ours,
            "station with sound": sounding,
            "baresip": baresip,
        }
        waits = _by_turns(callers, registrar)
    for name, values in waits.items():
        yield Row(f"press to INVITE, {name}: median", percentile(values, 50), "ms")
        yield Row(f"press to INVITE, {name}: p99", percentile(values, 99), "ms")
    for rank, limit in ((50, 1.5), (99, 3.0)):
        floor = percentile(waits["bare pjsua2"], rank)
        for name in ("station", "station with sound"):
            value = percentile(waits[name], rank) / floor
            yield Row(f"press to INVITE, {name}: p{rank} / bare", value, "", limit)


def _by_turns(callers: dict[str, Caller], registrar: Registrar) -> dict[str, list[float]]:
    """Milliseconds of each press; the pauses differ, so that no program's clock beats with ours."""
    waits: dict[str, list[float]] = {name: [] for name in callers}
    clock = threading.Event()
    for _ in range(PRESSES):
        for name in random.sample(list(callers), len(callers)):
            pressed = callers[name].press()
            waits[name].append((registrar.wait_invite() - pressed) / 1e6)
            callers[name].rest()
            clock.wait(PAUSE_SECONDS * random.uniform(0.5, 1.5))
    return waits
