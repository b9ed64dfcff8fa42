"""What the lamp tells the visitor."""

from collections.abc import Iterator
from itertools import combinations, pairwise
from math import inf

import pytest

from hardware.lamp import PATTERNS, Lamp
from hardware.simulator import SimulatedPins
from tests.unit.hardware.conftest import Ear

PIN = 22


@pytest.fixture
def lamp(pins: SimulatedPins) -> Iterator[Lamp]:
    opened = Lamp("status", PIN, pins)
    yield opened
    opened.close()


def flashes(name: str) -> int:
    return len(PATTERNS[name][::2])


def share_lit(name: str) -> float:
    steps = PATTERNS[name]
    return 0.0 if not steps else 1.0 if steps == (inf,) else sum(steps[::2]) / sum(steps)


def flashes_per_second(name: str) -> float:
    steps = PATTERNS[name]
    return 0.0 if len(steps) < 2 else flashes(name) / sum(steps)


def test_all_patterns_differ() -> None:
    assert len(set(PATTERNS.values())) == len(PATTERNS)


@pytest.mark.parametrize(("one", "other"), list(combinations(PATTERNS, 2)))
def test_an_eye_can_tell_any_two_patterns_apart(one: str, other: str) -> None:
    counted = flashes(one) != flashes(other)
    one_is_steady = (flashes_per_second(one) == 0) != (flashes_per_second(other) == 0)
    slow, fast = sorted((flashes_per_second(one), flashes_per_second(other)))
    dim, bright = sorted((share_lit(one), share_lit(other)))
    assert counted or one_is_steady or fast >= 2 * slow > 0 or bright - dim >= 0.4


@pytest.mark.parametrize("steps", [steps for steps in PATTERNS.values() if len(steps) > 1])
def test_a_blinking_pattern_ends_dark_and_no_step_is_too_short_to_see(steps: tuple[float, ...]) -> None:
    assert len(steps) % 2 == 0
    assert min(steps) >= 0.1


def test_outcomes_are_counted_from_two_to_seven() -> None:
    outcomes = ["busy", "rejected", "not_found", "no_answer", "unreachable", "failed"]
    assert [flashes(name) for name in outcomes] == [2, 3, 4, 5, 6, 7]


def test_the_lamp_is_lit_nearly_always_while_the_microphone_is_live() -> None:
    assert share_lit("talking") > 0.9


def test_it_is_dark_until_it_is_told_otherwise(lamp: Lamp) -> None:
    assert (lamp.pattern, lamp.lit) == ("dark", False)


@pytest.mark.parametrize("name", [name for name in PATTERNS if name != "dark"])
def test_a_pattern_lights_the_lamp_at_once(lamp: Lamp, name: str) -> None:
    lamp.show(name)
    assert (lamp.pattern, lamp.lit) == (name, True)


def test_dark_is_dark_at_once(lamp: Lamp) -> None:
    lamp.show("talking")
    lamp.show("dark")
    assert not lamp.lit


def test_it_blinks_in_time(lamp: Lamp, pins: SimulatedPins, levels: Ear[bool, float]) -> None:
    pins.watch(PIN, levels)
    lamp.show("calling")
    seen = [levels.next() for _ in range(5)]
    assert [level for level, _ in seen] == [True, False, True, False, True]
    assert all(later - earlier >= 0.09 for (_, earlier), (_, later) in pairwise(seen))


def test_a_new_pattern_does_not_wait_for_the_end_of_the_old_one(
    lamp: Lamp, pins: SimulatedPins, levels: Ear[bool, float]
) -> None:
    lamp.show("fault")
    pins.watch(PIN, levels)
    assert levels.next()[0] is False  # now dark for 1.9 s
    lamp.show("ready")
    assert levels.next()[0] is True
    assert lamp.lit


def test_the_same_pattern_again_does_not_start_it_anew(
    lamp: Lamp, pins: SimulatedPins, levels: Ear[bool, float]
) -> None:
    pins.watch(PIN, levels)
    lamp.show("calling")
    lamp.show("calling")
    assert [levels.next()[0] for _ in range(3)] == [True, False, True]


def test_a_steady_lamp_does_not_wake_its_thread(
    lamp: Lamp, pins: SimulatedPins, levels: Ear[bool, float]
) -> None:
    lamp.show("ready")
    pins.watch(PIN, levels)
    lamp.show("ready")
    assert levels.all() == []


def test_a_pattern_nobody_knows_changes_nothing(lamp: Lamp) -> None:
    lamp.show("ready")
    with pytest.raises(KeyError, match="disco"):
        lamp.show("disco")
    assert lamp.pattern == "ready"


def test_a_closed_lamp_is_dark_and_gives_its_pin_back(pins: SimulatedPins, levels: Ear[bool, float]) -> None:
    lamp = Lamp("status", PIN, pins)
    lamp.show("calling")
    pins.watch(PIN, levels)
    lamp.close()
    lamp.close()
    assert levels.next()[0] is False
    Lamp("status", PIN, pins).close()
