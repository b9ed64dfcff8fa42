"""The service's end of the strikes: orders, the guardian's word, and a guardian that comes and goes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploy.demo.program import wait_until
from hardware.strike import OwnGuardian, StrikeFault, Strikes, SystemGuardian, lock_all, look
from tests.guarding import FRONT, Guardian, Trace, doors
from tests.unit.hardware.conftest import Ear, Guarded

DOOR = {"name": "front", "pin": FRONT, "release_seconds": 30}
LOCKED = ("locked\tfront\t0", "ready")


NOT_YET = "its guardian has not answered yet"


def open_up(guarded: Guarded) -> None:
    """A guardian that has greeted, and released the front door."""
    guarded.says(*LOCKED)
    assert guarded.ailed.next() == ("front", None)
    assert guarded.strikes.release("front", 5) == 1
    assert guarded.hears() == "release\tfront\t1\t5"
    guarded.says("released\tfront\t1")
    assert guarded.moved.next() == ("front", True, 1)


def test_released_is_what_the_guardian_says(guarded: Guarded) -> None:
    open_up(guarded)
    assert guarded.strikes.released == {"front": True}
    guarded.says("locked\tfront\t1")
    assert guarded.moved.next() == ("front", False, 1)
    assert guarded.strikes.released == {"front": False}
    assert not guarded.strikes.feed()


def test_it_is_fed_while_a_door_is_released(guarded: Guarded) -> None:
    assert not guarded.strikes.feed()
    open_up(guarded)
    assert guarded.strikes.feed()
    assert guarded.hears() == "feed"
    guarded.strikes.lock("front")
    assert guarded.hears() == "lock\tfront"
    assert guarded.strikes.feed(), "it has not said that it is locked"


def test_a_refused_release_is_over(guarded: Guarded) -> None:
    open_up(guarded)
    guarded.says("locked\tfront\t1")
    assert guarded.moved.next() == ("front", False, 1)
    guarded.strikes.release("front", 5)
    guarded.says("refused\tfront\t2\trests")
    assert guarded.moved.next() == ("front", False, 2)
    assert not guarded.strikes.feed()


def test_before_the_guardian_has_answered_nothing_is_released(guarded: Guarded) -> None:
    with pytest.raises(StrikeFault, match="not answered yet"):
        guarded.strikes.release("front", 5)
    guarded.strikes.lock("front")
    with pytest.raises(KeyError):
        guarded.strikes.release("cellar", 5)


def test_a_guardian_that_ends_is_a_fault_until_it_is_back(guarded: Guarded) -> None:
    open_up(guarded)
    guarded.refuses = True
    guarded.goes()
    assert guarded.ailed.next() == ("front", "its guardian is gone")
    assert guarded.moved.next() == ("front", False, 1)
    assert guarded.ailed.next() == ("front", "its guardian is not there: nobody is there")
    assert guarded.strikes.released == {}
    with pytest.raises(StrikeFault, match="nobody is there"):
        guarded.strikes.release("front", 5)
    guarded.refuses = False
    guarded.says(*LOCKED)
    assert guarded.ailed.next() == ("front", None)
    assert guarded.strikes.release("front", 5) == 2


def test_a_guardian_that_says_nothing_is_a_fault(guarded: Guarded) -> None:
    assert guarded.theirs
    assert guarded.ailed.next() == ("front", "its guardian does not answer")


def test_a_door_that_the_guardian_does_not_know_is_a_fault(guarded: Guarded) -> None:
    guarded.says("locked\tyard\t0", "released\tyard\tx", "nonsense", "ready")
    assert guarded.ailed.next() == ("front", "its guardian does not know it: are its settings older?")


def test_a_listener_that_fails_is_logged(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    def fail(door: str, reason: str | None) -> None:
        raise RuntimeError("the loop is closed")

    strikes = Strikes(["front"], guarded, guarded.moved, fail)
    guarded.theirs.close()
    guarded.looked_for.get(timeout=5).close()
    guarded.looked_for.get(timeout=5)
    strikes.close()
    assert "was not taken" in caplog.text


# With the guardian itself


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "intercom.toml"
    file.write_text(doors(DOOR))
    return file


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trace:
    trace = Trace(tmp_path / "lines")
    for name, value in trace.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    return trace


def test_our_own_guardian_comes_back_and_ends_with_us(settings: Path, trace: Trace) -> None:
    moved: Ear[str, bool, int] = Ear()
    ailed: Ear[str, str | None] = Ear()
    own = OwnGuardian(settings)
    strikes = Strikes(["front"], own, moved, ailed)
    trace.wait(1)
    assert wait_until(lambda: bool(strikes.released), 5)
    strikes.release("front", 30)
    assert moved.next() == ("front", True, 1)
    process = own._process
    assert process is not None
    process.kill()
    assert moved.next() == ("front", False, 1)
    assert [ailed.next()[1] for _ in range(4)] == [NOT_YET, None, "its guardian is gone", None]
    assert [change.level for change in trace.levels()] == [False, True, False]
    strikes.release("front", 30)
    assert moved.next() == ("front", True, 2)
    strikes.close()
    strikes.close()
    assert trace.levels()[-1].level is False
    assert own._process is None


def test_a_guardian_that_cannot_be_started_is_a_fault(
    settings: Path, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    ailed: Ear[str, str | None] = Ear()
    strikes = Strikes(["front"], OwnGuardian(settings), lambda *moved: None, ailed)
    reasons = [ailed.next()[1] for _ in range(2)]
    assert reasons == [NOT_YET, "its guardian is not there: No such file or directory"]
    strikes.close()


def test_the_systems_guardian_is_looked_at_and_locks_for_anybody(tmp_path: Path) -> None:
    with Guardian(tmp_path, doors(DOOR)) as guardian:
        way = SystemGuardian(guardian.path)
        assert look(way) == {"front": ""}
        service = guardian.ordered()
        service.say("release", "front", 1, 30)
        service.hear()
        lock_all(way)
        assert guardian.trace.levels()[-1].level is False
        lock_all(way)
    with pytest.raises(OSError, match="No such file"):
        look(SystemGuardian(tmp_path / "nobody"))
