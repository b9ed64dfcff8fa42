"""A writer that is killed, a disk that fails, and a station that opens doors all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.demo.program import wait_until
from tests.bench import journal
from tests.system.conftest import Door
from tests.system.test_cli import DONE, told


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int]]:
    """The first hundred calls of a writer to the disk."""
    return journal.places(tmp_path_factory.mktemp("reference") / "record", 100)


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, calls: list[tuple[str, int]]) -> None:
    # Of each name the first and the last, and some more; `make bench-journal` has each of the first 500.
    chosen = {*calls[::12], *dict(calls).items(), *((name, 1) for name in dict(calls))}
    assert {"rename", "fsync", "pwrite64", "fdatasync"} <= {name for name, _ in chosen}
    for call, number in sorted(chosen):
        killed = journal.killed_at(tmp_path / "killed", call, number)
        assert (killed.died, killed.lost, killed.wrong) == (True, 0, ""), f"{call} {number}"
        assert killed.more <= 1


def test_what_was_acknowledged_survives_a_kill_while_old_records_are_dropped(tmp_path: Path) -> None:
    old = tmp_path / "old" / "journal.db"
    journal.fill(old, journal.OLD)
    for number in (2, 40, 150, 390):
        killed = journal.killed_at(tmp_path / "killed", "pwrite64", number, old)
        assert (killed.died, killed.lost, killed.wrong) == (True, 0, ""), number


def test_nothing_is_acknowledged_before_the_disk_has_it(tmp_path: Path) -> None:
    written = journal.write(tmp_path / "journal.db", count=40)
    assert (written.acknowledged, journal.early(written)) == (40, 0)


@pytest.mark.parametrize("disk", journal.FAILURES)
def test_a_disk_that_fails_for_a_while_costs_no_record(tmp_path: Path, disk: str) -> None:
    written, lost, wrong = journal.failing(tmp_path / "failing", journal.FAILURES[disk])
    assert (written.code, lost, wrong) == (0, 0, "")
    assert 50 < written.acknowledged < 100
    assert written.said.count("+") == 1, "the end of the fault is told once"
    assert 1 <= written.said.count("-") <= 2, "and each reason of it"


def test_doors_open_while_nothing_can_be_recorded(door: Door) -> None:
    obstacle = door.folder / "state"
    obstacle.touch()
    door.environment["STATE_DIRECTORY"] = str(obstacle)
    with door.serving():
        assert wait_until(lambda: "journal" in told(door, "status")["faults"], 5)
        answer = door.intercom("open")
        assert (answer.code, answer.err) == (DONE, "door front is released for 0.5 s\n")
        assert told(door, "log") == []
        assert "FAULT journal: records cannot be written" in door.intercom("status").out
        obstacle.unlink()
        assert wait_until(lambda: "journal" not in told(door, "status")["faults"], 10)
        gap, started, settings, access = told(door, "log")
        assert (gap["kind"], gap["late"], gap["lost"]) == ("gap", 3, 0)
        assert gap["since"] == started["at"] <= settings["at"] < access["at"] < gap["until"]
        assert (access["door"], access["granted"]) == ("front", True)
        assert "GAP from" in door.intercom("log").out
    assert door.intercom("log", "verify").out == "5 records hold, 1 to 5\n"
