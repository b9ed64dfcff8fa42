"""From the start of the process to a lit lamp, and to a registration where the registrar answers at once."""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from deploy.demo.account import Account
from deploy.demo.program import Program
from tests.bench.callers import COMMAND, START_SECONDS, Bare, Held, LoneBaresip, station
from tests.bench.registrar import Registrar
from tests.bench.rows import Row

STARTS = 5


def measure(folder: Path) -> Iterator[Row]:
    taken: dict[str, list[float]] = {name: [] for name in _WAYS}
    with Registrar() as registrar:
        for turn in range(STARTS):
            for name, (way, _) in _WAYS.items():
                taken[name].append(way(folder / f"{turn} {name}", registrar.account("door")))
    for name, (_, limit) in _WAYS.items():
        yield Row(f"start to {name}", statistics.median(taken[name]), "s", limit)


def _registered(folder: Path, account: Account) -> float:
    ours = station(folder, account)
    ours.write_settings()
    begun = time.time_ns()
    with Program([COMMAND, "run"], folder / "run.log", ours.environment) as program:
        program.wait_for("registered for", START_SECONDS)
        return (time.time_ns() - begun) / 1e9


def _lit(folder: Path, account: Account) -> float:
    with Held(station(folder, account)) as ours:
        return (ours.wait_lit() - ours.begun) / 1e9


def _bare(folder: Path, account: Account) -> float:
    with Bare(folder, account) as bare:
        bare.wait_registered()
        return (time.time_ns() - bare.begun) / 1e9


def _baresip(folder: Path, account: Account) -> float:
    phone = LoneBaresip(folder, account)
    phone.write_configuration()
    with phone:
        phone.program.wait_for("200 OK", START_SECONDS)
        return (time.time_ns() - phone.begun) / 1e9


_WAYS: dict[str, tuple[Callable[[Path, Account], float], float | None]] = {
    "station registered": (_registered, 0.45),
    "station's lamp lit": (_lit, 0.25),
    "bare pjsua2 registered": (_bare, None),
    "baresip registered": (_baresip, None),
}
