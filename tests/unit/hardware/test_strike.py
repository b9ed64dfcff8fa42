"""The hand on the lock: it opens at once and never stays open."""

import logging
import threading
from collections.abc import Iterator

import pytest
from gpiozero import DeviceClosed, OutputDevice

from hardware.simulator import SimulatedPins, Watcher
from hardware.strike import Strike
from tests.unit.hardware.conftest import Ear

FRONT = 27
LIMIT = 0.1
SLACK = 0.05
"""The tolerance of the energised time, in seconds."""


@pytest.fixture
def strike(pins: SimulatedPins, ear: Ear[str, bool]) -> Iterator[Strike]:
    opened = Strike("front", FRONT, LIMIT, pins, on_change=ear)
    yield opened
    opened.close()


def energised_seconds(levels: Ear[bool, float]) -> float:
    (on, since), (off, until) = levels.next(), levels.next()
    assert (on, off) == (True, False)
    return until - since


def sets_when_low(event: threading.Event) -> Watcher:
    def watcher(level: bool, at: float) -> None:
        if not level:
            event.set()

    return watcher


def test_a_release_energises_before_it_returns(strike: Strike, pins: SimulatedPins) -> None:
    strike.release(0.05)
    assert strike.released
    assert pins.pin(FRONT).state


def test_it_locks_itself_after_the_time_asked_for(
    strike: Strike, pins: SimulatedPins, levels: Ear[bool, float]
) -> None:
    pins.watch(FRONT, levels)
    strike.release(0.05)
    assert 0.05 <= energised_seconds(levels) <= 0.05 + SLACK
    assert not strike.released


def test_it_locks_itself_at_the_limit(strike: Strike, pins: SimulatedPins, levels: Ear[bool, float]) -> None:
    pins.watch(FRONT, levels)
    strike.release(3600)
    assert LIMIT <= energised_seconds(levels) <= LIMIT + SLACK


def test_it_locks_while_the_rest_of_the_program_is_blocked(pins: SimulatedPins) -> None:
    locked = threading.Event()
    strike = Strike("front", FRONT, LIMIT, pins)
    pins.watch(FRONT, sets_when_low(locked))
    loop = threading.Lock()
    with loop:  # the thread that released it does nothing but wait from here on
        strike.release(3600)
        assert locked.wait(5)
    strike.close()


def test_a_listener_that_never_returns_does_not_keep_the_door_open(pins: SimulatedPins) -> None:
    locked, go_on = threading.Event(), threading.Event()

    def listener(name: str, released: bool) -> None:
        go_on.wait(5)

    strike = Strike("front", FRONT, LIMIT, pins, on_change=listener)
    pins.watch(FRONT, sets_when_low(locked))
    stuck = threading.Thread(target=strike.release, args=(3600,))
    stuck.start()
    assert locked.wait(5)
    assert stuck.is_alive()
    go_on.set()
    stuck.join()
    strike.close()


def test_a_hundred_releases_at_once_are_one_release(pins: SimulatedPins, levels: Ear[bool, float]) -> None:
    strike = Strike("front", FRONT, 3600, pins)
    pins.watch(FRONT, levels)
    together = threading.Barrier(100)

    def release() -> None:
        together.wait()
        strike.release(3600)

    people = [threading.Thread(target=release) for _ in range(100)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    strike.close()
    assert [level for level, _ in levels.all()] == [True, False]


def test_a_second_release_prolongs_but_not_past_the_limit(
    strike: Strike, pins: SimulatedPins, levels: Ear[bool, float]
) -> None:
    pins.watch(FRONT, levels)
    strike.release(0.02)
    strike.release(3600)
    assert LIMIT <= energised_seconds(levels) <= LIMIT + SLACK


def test_a_second_release_never_shortens_the_first(
    strike: Strike, pins: SimulatedPins, levels: Ear[bool, float]
) -> None:
    pins.watch(FRONT, levels)
    strike.release(0.08)
    strike.release(0.01)
    assert energised_seconds(levels) >= 0.08


def test_after_locking_it_can_be_released_again(strike: Strike, ear: Ear[str, bool]) -> None:
    strike.release(0.02)
    strike.lock()
    strike.release(0.02)
    assert [ear.next() for _ in range(4)] == [
        ("front", True),
        ("front", False),
        ("front", True),
        ("front", False),
    ]


def test_lock_locks_at_once_and_only_once(strike: Strike, pins: SimulatedPins, ear: Ear[str, bool]) -> None:
    strike.release(3600)
    strike.lock()
    strike.lock()
    assert not strike.released
    assert not pins.pin(FRONT).state
    assert ear.all() == [("front", True), ("front", False)]


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_release_of_no_time_is_refused(strike: Strike, ear: Ear[str, bool], seconds: float) -> None:
    with pytest.raises(ValueError, match="more than 0 seconds"):
        strike.release(seconds)
    assert not strike.released
    assert ear.all() == []


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_a_strike_without_a_limit_is_refused(pins: SimulatedPins, limit: float) -> None:
    with pytest.raises(ValueError, match="limit_seconds"):
        Strike("front", FRONT, limit, pins)


@pytest.mark.parametrize("active_high", [True, False])
def test_no_pulse_at_opening_and_closing(
    pins: SimulatedPins, levels: Ear[bool, float], active_high: bool
) -> None:
    pins.watch(FRONT, levels)
    Strike("front", FRONT, LIMIT, pins, active_high).close()
    assert (active_high, pins.pin(FRONT).state) in [(True, False), (False, True)]
    assert [level for level, _ in levels.all()] == ([] if active_high else [True])


def test_an_active_low_relay_is_energised_by_a_low_pin(pins: SimulatedPins) -> None:
    strike = Strike("front", FRONT, LIMIT, pins, active_high=False)
    assert pins.pin(FRONT).state
    strike.release(3600)
    assert not pins.pin(FRONT).state
    strike.close()


def test_closing_locks_and_ends_the_strike(pins: SimulatedPins, ear: Ear[str, bool]) -> None:
    strike = Strike("front", FRONT, 3600, pins, on_change=ear)
    strike.release(3600)
    strike.close()
    strike.close()
    assert not pins.pin(FRONT).state
    assert ear.all() == [("front", True), ("front", False)]
    with pytest.raises(DeviceClosed):
        strike.release(1)
    assert not strike.released


def test_a_listener_that_fails_does_not_end_the_timer(
    pins: SimulatedPins, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bool] = []
    locked_again = threading.Event()

    def listener(name: str, released: bool) -> None:
        heard.append(released)
        if heard.count(False) == 2:
            locked_again.set()
        raise RuntimeError("the loop is closed")

    strike = Strike("front", FRONT, LIMIT, pins, on_change=listener)
    with caplog.at_level(logging.ERROR):
        strike.release(3600)
        strike.lock()
        strike.release(0.01)
        assert locked_again.wait(5)
    assert heard == [True, False, True, False]
    strike.close()


def test_locking_is_tried_again_when_the_pin_could_not_be_driven(
    pins: SimulatedPins,
    ear: Ear[str, bool],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = iter([OSError("the chip is gone")])
    real_off = OutputDevice.off

    def off(device: OutputDevice) -> None:
        for error in tries:
            raise error
        real_off(device)

    monkeypatch.setattr(OutputDevice, "off", off)
    strike = Strike("front", FRONT, LIMIT, pins, on_change=ear)
    strike.release(0.01)
    assert [ear.next(), ear.next()] == [("front", True), ("front", False)]
    assert "still released" in caplog.text
    strike.close()
