"""A site with users, the voices, and a watch that nothing is left running."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from deploy.demo.program import wait_until
from deploy.demo.site import Site
from deploy.demo.speech import PASSER_BY, RESIDENT, VISITOR, spoken
from tests.bench.rows import Row
from tests.integration.servers import TwoServers

Figure = Callable[..., None]

USERS = {"door": "door-secret", "flat1": "flat1-secret", "flat2": "flat2-secret", "room": "room-secret"}


@dataclass(frozen=True)
class Voices:
    """WAV files of three people who say different things."""

    visitor: Path
    resident: Path
    passer_by: Path


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Voices:
    folder = tmp_path_factory.mktemp("voices")
    return Voices(*(spoken(sentence, folder) for sentence in (VISITOR, RESIDENT, PASSER_BY)))


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """No process and no thread outlives its test."""
    threads = set(threading.enumerate())
    yield
    assert wait_until(lambda: not _processes(tmp_path), 2.0), _processes(tmp_path)
    assert set(threading.enumerate()) <= threads


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[TwoServers]:
    with ExitStack() as parts:
        yield TwoServers.start(tmp_path, USERS, parts)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "site", users=USERS) as site:
        yield site


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Add a figure of an item to its table; one that exceeds its limit fails the test."""

    def add(name: str, value: float, unit: str, limit: float | None = None) -> None:
        row = Row(name, value, unit, limit)
        request.node.user_properties.append(("figure", {**asdict(row), "holds": row.holds}))
        assert row.holds, f"{name}: {value:.4g} {unit}, more than {limit}"

    return add


def _processes(folder: Path) -> list[str]:
    """Command lines of our children, and of orphans that work in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid() or str(folder) in command:
            found.append(command)
    return found
