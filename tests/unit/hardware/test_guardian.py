"""The guardian of the doors, as the process that it is: it locks, whatever becomes of who released."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.guardian import MINUTE, Duty, Wiring, WrongDoors, main, read_doors
from intercom.settings.schema import Door as DoorSettings
from tests.guarding import FRONT, YARD, Guardian, doors

EARLY, LATE = 0.02, 0.3
"""How exact times are, in seconds, beside other tests; `make bench-guardian` measures them alone."""
LIMIT = 0.4
DOOR = {"name": "front", "pin": FRONT, "release_seconds": LIMIT}


@pytest.fixture
def guardian(tmp_path: Path) -> Iterator[Guardian]:
    with Guardian(tmp_path, doors(DOOR)) as guardian:
        yield guardian


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Guardian]:
    """One whose door may stay open for a while."""
    with Guardian(tmp_path, doors({**DOOR, "release_seconds": 30})) as guardian:
        yield guardian


def read(folder: Path, *tables: dict[str, object], board: str = "simulated") -> dict[str, Wiring]:
    file = folder / "doors.toml"
    file.write_text(doors(*tables, board=board))
    return read_doors(str(file))[1]


# Time


@pytest.mark.parametrize(("asked", "open_for"), [(0.2, 0.2), (LIMIT, LIMIT), (3600, LIMIT)])
def test_it_locks_in_time_and_never_past_the_limit(guardian: Guardian, asked: float, open_for: float) -> None:
    service = guardian.ordered()
    service.say("release", "front", 7, asked)
    assert service.hear() == ["released", "front", "7"]
    assert service.hear() == ["locked", "front", "7"]
    _, opened, locked = guardian.trace.levels()
    assert -EARLY <= locked.at - opened.at - open_for <= LATE


def test_a_second_release_prolongs_but_not_past_the_limit(guardian: Guardian) -> None:
    service = guardian.ordered()
    service.say("release", "front", 1, 0.2)
    service.say("release", "front", 2, 3600)
    assert service.hear() == ["released", "front", "1"]
    assert service.hear() == ["locked", "front", "2"]
    _, opened, locked = guardian.trace.levels()
    assert -EARLY <= locked.at - opened.at - LIMIT <= LATE


def test_a_hundred_releases_at_once_are_one(guardian: Guardian) -> None:
    services = [guardian.ordered() for _ in range(4)]
    for number in range(100):
        services[number % 4].say("release", "front", number, 3600)
    _, opened, locked = guardian.trace.wait(3)
    assert -EARLY <= locked.at - opened.at - LIMIT <= LATE
    assert len(guardian.trace.levels()) == 3


def test_an_order_to_lock_locks_at_once(patient: Guardian) -> None:
    service = patient.ordered()
    service.say("release", "front", 1, 30)
    assert service.hear() == ["released", "front", "1"]
    said = service.say("lock", "front")
    assert service.hear() == ["locked", "front", "1"]
    assert patient.trace.levels()[-1].at - said <= LATE


def test_anybody_may_lock_but_only_who_released_may_prolong(patient: Guardian) -> None:
    service, other = patient.ordered(), patient.ordered()
    service.say("release", "front", 1, 30)
    assert other.hear() == ["released", "front", "1"]
    other.say("release", "front", 1, 30)
    assert other.hear() == ["refused", "front", "1", "is released by another program"]
    other.say("lock", "front")
    assert other.hear() == ["locked", "front", "1"]


# The service dies, freezes, talks nonsense


def test_it_locks_when_the_connection_ends(patient: Guardian) -> None:
    service = patient.ordered()
    service.say("release", "front", 1, 30)
    service.hear()
    ended = time.monotonic()
    service.close()
    assert patient.trace.wait(3)[-1].at - ended <= LATE


def test_it_locks_when_it_is_not_fed(patient: Guardian) -> None:
    service = patient.ordered()
    service.say("release", "front", 1, 30)
    service.hear()
    fed = service.say("feed")
    assert service.hear() == ["locked", "front", "1"]
    assert 1.0 <= patient.trace.levels()[-1].at - fed <= 1.0 + LATE


def test_a_service_that_does_not_listen_is_left(patient: Guardian) -> None:
    """It is frozen: what it is told fills its buffer, and the guardian does not wait for it."""
    deaf, service = patient.ordered(), patient.ordered()
    for number in range(1000):
        service.say("release", "front", number, 30)
        assert service.hear()[0] == "released"
        service.say("lock", "front")
        assert service.hear()[0] == "locked"
    heard = 0
    while deaf.hear():
        heard += 1
    assert heard < 2000


@pytest.mark.parametrize(
    "message",
    [
        "",
        "open",
        "release\tfront",
        "release\tcellar\t1\t1",
        "lock\tcellar",
        "feed\tfeed",
        "\udcff",
        "x" * 9000,
    ],
)
def test_nonsense_ends_its_connection_and_locks(patient: Guardian, message: str) -> None:
    service, other = patient.ordered(), patient.ordered()
    service.say("release", "front", 1, 30)
    service.hear()
    service.connection.send(message.encode(errors="surrogateescape"))
    assert patient.trace.wait(3)[-1].level is False
    other.hear()
    other.say("release", "front", 2, 30)
    assert other.hear()[0] in {"locked", "released"}


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_release_of_no_time_is_refused(guardian: Guardian, seconds: str) -> None:
    service = guardian.ordered()
    service.say("release", "front", 1, seconds)
    assert service.hear() == ["refused", "front", "1", "a release takes more than 0 seconds"]
    assert len(guardian.trace.levels()) == 1


def test_more_connections_than_it_takes_are_closed(guardian: Guardian) -> None:
    taken = [guardian.ordered() for _ in range(8)]
    assert guardian.connect().hear() == []
    taken[0].close()
    service = taken[1]
    service.say("release", "front", 1, 0.2)
    assert service.hear() == ["released", "front", "1"]


# Start and end


@pytest.mark.parametrize("energise_to", ["open", "lock"])
@pytest.mark.parametrize("active_high", [True, False])
def test_no_pulse_at_start_and_end(tmp_path: Path, active_high: bool, energise_to: str) -> None:
    door = {**DOOR, "active_high": active_high, "energise_to": energise_to}
    locked_level = active_high if energise_to == "lock" else not active_high
    with Guardian(tmp_path, doors(door)) as guardian:
        guardian.ordered()
        guardian.program.signal(signal.SIGTERM)
        assert guardian.program.wait(2) == 0
        assert [change.level for change in guardian.trace.levels()] == [locked_level]
        guardian.start()
        service = guardian.ordered()
        service.say("release", "front", 1, 0.2)
        service.hear()
        assert guardian.trace.levels()[-1].level is not locked_level
        service.hear()
    assert [change.level for change in guardian.trace.levels()] == [
        locked_level,
        not locked_level,
        locked_level,
    ]


def test_its_end_locks(patient: Guardian) -> None:
    service = patient.ordered()
    service.say("release", "front", 1, 30)
    service.hear()
    patient.program.signal(signal.SIGTERM)
    assert patient.program.wait(2) == 0
    assert [change.level for change in patient.trace.levels()] == [False, True, False]


def test_killed_with_the_door_open_its_stop_hook_locks(
    patient: Guardian, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = patient.ordered()
    service.say("release", "front", 1, 30)
    service.hear()
    patient.program.signal(signal.SIGKILL)
    patient.program.wait(2)
    assert patient.trace.levels()[-1].level is True
    monkeypatch.setenv("INTERCOM_LINES", str(patient.trace.file))
    assert main(["--lock", str(patient.settings)]) == 0
    assert patient.trace.levels()[-1].level is False


# Settings


def test_the_doors_are_read_with_the_defaults_of_the_service(tmp_path: Path) -> None:
    (wiring,) = read(tmp_path, {"name": "front", "pin": FRONT}).values()
    service = DoorSettings(name="front", pin=FRONT)
    assert wiring.limit == service.release_seconds
    assert wiring.open_level == (service.active_high == (service.energise_to == "open"))
    assert (wiring.duty, service.duty_percent) == (0.5, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 5),
        ("name", "a\tb"),
        ("pin", True),
        ("pin", 28),
        ("release_seconds", 0),
        ("release_seconds", 61),
        ("release_seconds", "5"),
        ("active_high", 1),
        ("energise_to", "shut"),
        ("duty_percent", 0),
        ("duty_percent", 101),
        ("duty_percent", 0.1),
    ],
)
def test_a_wrong_door_is_refused(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(WrongDoors, match=rf"door\[1\].*{key}"):
        read(tmp_path, {**DOOR, key: value})


def test_a_pin_with_another_purpose_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongDoors, match="has another purpose"):
        read(tmp_path, {**DOOR, "pin": 14}, board="raspberry-pi")
    with pytest.raises(WrongDoors, match="has another purpose"):
        read(tmp_path, DOOR, {**DOOR, "name": "yard"})
    with pytest.raises(WrongDoors, match="toaster"):
        read(tmp_path, DOOR, board="toaster")


@pytest.mark.parametrize(("seconds", "duty"), [(5, 0.5), (24, 0.8), (45, 1.0)])
def test_a_long_release_has_the_duty_it_needs(tmp_path: Path, seconds: float, duty: float) -> None:
    (wiring,) = read(tmp_path, {**DOOR, "release_seconds": seconds}).values()
    assert wiring.duty == duty


def test_changed_settings_count_for_the_next_service(guardian: Guardian) -> None:
    guardian.ordered()
    guardian.settings.write_text(doors({**DOOR, "release_seconds": 0.2}, {"name": "yard", "pin": YARD}))
    service = guardian.connect()
    assert service.greeting() == [["locked", "front", "0"], ["locked", "yard", "0"]]
    service.say("release", "front", 1, 3600)
    _, opened, locked = guardian.trace.wait(3)
    assert -EARLY <= locked.at - opened.at - 0.2 <= LATE


def test_a_line_whose_door_has_not_changed_is_not_touched(guardian: Guardian) -> None:
    guardian.settings.write_text(doors(DOOR, {"name": "yard", "pin": YARD}))
    assert len(guardian.connect().greeting()) == 2
    assert [row.split()[1:] for row in guardian.trace.file.read_text().splitlines()] == [
        [str(FRONT), "0"],
        [str(YARD), "0"],
    ]


def test_settings_that_are_wrong_leave_the_doors_as_they_are(guardian: Guardian) -> None:
    guardian.settings.write_text("[station")
    assert guardian.connect().greeting() == [["locked", "front", "0"]]


def test_a_start_with_wrong_settings_uses_the_last_good_ones(tmp_path: Path) -> None:
    kept = {"STATE_DIRECTORY": str(tmp_path / "kept")}
    (tmp_path / "kept").mkdir()
    with Guardian(tmp_path, doors({**DOOR, "energise_to": "lock"}), kept) as guardian:
        guardian.program.signal(signal.SIGTERM)
        guardian.program.wait(2)
        guardian.settings.write_text("[station")
        guardian.start()
        assert guardian.connect().greeting() == [["locked", "front", "0"]]
    assert [change.level for change in guardian.trace.levels()] == [True]


def test_without_any_settings_it_ends_with_2(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--lock", str(tmp_path / "none.toml")]) == 2
    assert "none.toml" in capfd.readouterr().err
    assert main([]) == 2


def test_a_strike_that_cannot_be_driven_is_a_fault(tmp_path: Path) -> None:
    with Guardian(tmp_path, doors(DOOR, board="raspberry-pi")) as guardian:
        service = guardian.connect()
        fault = "pin 27 cannot be used: this computer has no GPIO chip of a Raspberry Pi"
        assert service.greeting() == [["locked", "front", "0"], ["fault", "front", fault]]
        service.say("release", "front", 1, 1)
        assert service.hear() == ["refused", "front", "1", fault]
        assert main(["--lock", str(guardian.settings)]) == 1


# Duty


def test_a_strike_rests_before_its_coil_burns(tmp_path: Path) -> None:
    door = {**DOOR, "release_seconds": 0.5, "duty_percent": 1.5}  # 0.9 s of a minute
    with Guardian(tmp_path, doors(door)) as guardian:
        service = guardian.ordered()
        service.say("release", "front", 1, 0.5)
        assert [service.hear()[0] for _ in range(3)] == ["released", "locked", "fault"]
        service.say("release", "front", 2, 0.5)
        assert service.hear() == ["refused", "front", "2", "has been energised too long, and rests"]
        assert guardian.connect().greeting()[1][0] == "fault"


def test_a_magnet_has_no_duty(tmp_path: Path) -> None:
    (wiring,) = read(tmp_path, {**DOOR, "energise_to": "lock"}).values()
    assert wiring.duty == 1.0


RELEASES = st.lists(
    st.tuples(st.floats(0, 30, allow_nan=False), st.floats(0.1, 20, allow_nan=False)), max_size=20
)


@given(RELEASES, st.floats(0.34, 1))
def test_never_more_than_its_part_of_any_minute(releases: list[tuple[float, float]], part: float) -> None:
    duty, now = Duty(part), 1000.0
    energised: list[tuple[float, float]] = []
    for pause, seconds in releases:
        now += pause
        if not duty.allows(now, now + seconds):
            ready = duty.rests_until(seconds, now)
            assert now < ready <= now + MINUTE
            assert duty.allows(ready, ready + seconds)
            assert not duty.allows(ready - 0.1, ready - 0.1 + seconds)
            continue
        assert duty.rests_until(seconds, now) <= now + 0.01
        energised.append((now, now + seconds))
        now += seconds
        duty.energised(*energised[-1])
    for _, end in energised:
        spent = sum(
            min(until, end) - max(since, end - MINUTE)
            for since, until in energised
            if min(until, end) > max(since, end - MINUTE)
        )
        assert spent <= part * MINUTE + 0.1


# What it is made of


def test_it_imports_nothing_but_what_it_needs() -> None:
    program = "import sys, hardware.guardian\nprint(len(sys.modules), *sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    number, *names = ran.stdout.split()
    forbidden = {
        "intercom",
        "asyncio",
        "gpiozero",
        "lgpio",
        "pydantic",
        "json",
        "logging",
        "threading",
        "ssl",
    }
    assert not forbidden & set(names)
    assert int(number) < 120
