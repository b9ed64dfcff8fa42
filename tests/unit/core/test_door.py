"""Who opens the door, with what, and for how long."""

import pytest

from intercom.core.access import LONGEST_CODE, door_for
from intercom.core.actions import Action, HangUp, Lock, Play, RecordAccess, Release, ShowLamp
from intercom.core.events import (
    CallAnswered,
    CallOffered,
    CallRang,
    DigitReceived,
    HealthChanged,
    OpenRequested,
    StrikeMoved,
    TimePassed,
)
from intercom.core.guide import Lamp, Tone
from intercom.core.policy import Door, Policy
from intercom.core.state import State, Talking
from tests.fakes import FLAT, FRONT_CODE, GATE_CODE, POLICY, Story

WRONG = [RecordAccess(None, "dtmf", FLAT, False, "wrong code")]


def talking(policy: Policy = POLICY) -> Story:
    story = Story(policy)
    story.press()
    story.tell(CallRang(1), CallAnswered(1))
    return story


def opened(door: str, seconds: float) -> list[Action]:
    return [
        Release(door, seconds),
        RecordAccess(door, "dtmf", FLAT, True, ""),
        ShowLamp(Lamp.DOOR_OPEN),
        Play(Tone.DOOR_OPEN),
    ]


# Codes


def test_a_resident_opens_the_door() -> None:
    story = talking()
    assert story.type(1, "4711") == []
    assert story.type(1, "#") == opened("front", 5)
    assert story.wait(4.9) == []
    assert story.wait(0.2) == [Lock("front"), ShowLamp(Lamp.TALKING), Play(Tone.SILENCE)]


def test_each_door_has_its_own_code() -> None:
    assert talking().type(1, GATE_CODE) == opened("gate", 3)


def test_a_caller_whom_a_press_answered_opens_the_door() -> None:
    story = Story()
    story.tell(CallOffered(-1, FLAT))
    story.press()
    story.tell(CallAnswered(-1))
    assert story.type(-1, FRONT_CODE) == opened("front", 5)


@pytest.mark.parametrize("typed", ["4712#", "#", "471#", "47110#", "04711#", "711#", "4711*#", "*#"])
def test_a_wrong_code_is_recorded_without_a_hint(typed: str) -> None:
    story = talking()
    assert story.type(1, typed) == WRONG
    assert story.state.released == {}


def test_a_wrong_code_is_forgotten_before_the_next() -> None:
    story = talking()
    assert story.type(1, "47#") == WRONG
    assert story.type(1, "11#") == WRONG
    assert story.type(1, FRONT_CODE) == opened("front", 5)


def test_a_code_takes_no_longer_than_its_window() -> None:
    story = talking()
    story.type(1, "47")
    story.wait(9.9)
    assert story.type(1, "11#") == opened("front", 5)


def test_a_digit_after_the_window_begins_a_new_code() -> None:
    story = talking()
    story.type(1, "47")
    story.wait(10)
    assert story.type(1, "11#") == WRONG
    story.type(1, "99")
    story.wait(10)
    assert story.type(1, FRONT_CODE) == opened("front", 5)


LONGEST = "9" * (LONGEST_CODE - 1) + "#"


def test_the_longest_code_opens() -> None:
    policy = Policy(POLICY.buttons, {"front": Door(5, frozenset({LONGEST}))})
    assert talking(policy).type(1, LONGEST) == opened("front", 5)


@pytest.mark.parametrize("more", ["1", "12", "9", "9" * 40])
def test_a_code_with_digits_before_it_is_too_long(more: str) -> None:
    story = talking(Policy(POLICY.buttons, {"front": Door(5, frozenset({LONGEST}))}))
    assert story.type(1, more + LONGEST) == WRONG
    assert story.type(1, LONGEST) == opened("front", 5)


def test_endless_digits_take_no_memory() -> None:
    story = talking()
    story.type(1, "0" * 10_000)
    assert isinstance(story.phase, Talking)
    assert len(story.phase.digits) <= LONGEST_CODE + 1


def test_what_is_no_digit_is_wrong_and_no_more() -> None:
    story = talking()
    assert story.type(1, "\udce9#") == WRONG
    assert story.type(1, "é#") == WRONG
    assert story.type(1, FRONT_CODE) == opened("front", 5)


def test_every_known_code_is_looked_at() -> None:
    doors = {"a": Door(1, frozenset({"1#", "2#"})), "b": Door(1, frozenset({"3#"})), "c": Door(1)}
    assert [door_for(doors, code) for code in ("1#", "2#", "3#", "4#", "")] == ["a", "a", "b", None, None]


# Not before, not after, not from elsewhere


def test_no_code_opens_before_the_answer() -> None:
    story = Story()
    story.press()
    assert story.type(1, FRONT_CODE) == []
    story.tell(CallRang(1, early_media=True))
    assert story.type(1, FRONT_CODE) == []
    story.tell(CallAnswered(1))
    assert story.type(1, "#") == WRONG, "what was typed before the answer is not kept"


def test_no_code_opens_after_the_end() -> None:
    story = talking()
    story.type(1, "4711")
    story.wait(3)
    story.press()
    assert story.type(1, "#") == []
    story.end(1)
    assert story.type(1, FRONT_CODE) == []


def test_no_code_opens_while_the_door_rings_for_an_incoming_call() -> None:
    story = Story()
    story.tell(CallOffered(-1, FLAT))
    assert story.type(-1, FRONT_CODE) == []
    story.press()
    assert story.type(-1, FRONT_CODE) == []


def test_digits_of_another_call_are_not_mixed_in() -> None:
    story = talking()
    story.type(1, "47")
    assert story.type(2, "99#") == []
    assert story.type(1, "11#") == opened("front", 5)


def test_a_new_call_knows_nothing_of_the_digits_before() -> None:
    story = talking()
    story.type(1, "47")
    story.end(1)
    story.wait(5)
    story.press()
    story.tell(CallAnswered(2))
    assert story.type(2, "11#") == WRONG


# One release per request


def test_a_second_code_while_the_door_is_open_does_not_prolong_it() -> None:
    story = talking()
    story.type(1, FRONT_CODE)
    story.wait(3)
    assert story.type(1, FRONT_CODE) == [RecordAccess("front", "dtmf", FLAT, False, "already released")]
    assert Lock("front") in story.wait(2)


def test_doors_are_open_independently() -> None:
    story = talking()
    story.type(1, FRONT_CODE)
    story.wait(1)
    assert story.type(1, GATE_CODE)[0] == Release("gate", 3)
    assert story.wait(3) == [Lock("gate")]
    assert story.wait(1) == [Lock("front"), ShowLamp(Lamp.TALKING), Play(Tone.SILENCE)]


def test_a_door_stays_open_for_its_time_when_the_call_ends() -> None:
    story = talking()
    story.type(1, FRONT_CODE)
    story.end(1)
    assert Lock("front") not in story.wait(4.9)
    assert Lock("front") in story.wait(0.2)


# Operators


def test_an_operator_opens_a_door() -> None:
    story = Story()
    assert story.tell(OpenRequested("front")) == [
        Release("front", 5),
        RecordAccess("front", "operator", "", True, ""),
        ShowLamp(Lamp.DOOR_OPEN),
        Play(Tone.DOOR_OPEN),
    ]
    assert story.tell(OpenRequested("front")) == [
        RecordAccess("front", "operator", "", False, "already released")
    ]


def test_a_door_that_does_not_exist_is_recorded() -> None:
    assert Story().tell(OpenRequested("vault")) == [
        RecordAccess("vault", "operator", "", False, "no such door")
    ]


# The strike


def test_a_flood_of_events_cannot_hold_the_door_open() -> None:
    story = talking()
    story.type(1, FRONT_CODE)
    story.now += 5
    assert story.tell(DigitReceived(1, "4"))[0] == Lock("front"), "before anything else, at the first event"


def test_the_door_is_locked_before_it_is_opened_anew() -> None:
    story = Story()
    story.tell(OpenRequested("front"))
    story.now += 5
    assert story.tell(OpenRequested("front"))[:2] == [Lock("front"), Release("front", 5)]


def test_a_door_that_its_guardian_has_locked_early_can_be_opened_anew() -> None:
    story = Story()
    story.tell(OpenRequested("front"), StrikeMoved("front", True))
    assert Lock("front") in story.tell(StrikeMoved("front", False))
    assert story.state.released == {}
    assert Release("front", 5) in story.tell(OpenRequested("front"))
    assert Lock("front") in story.wait(5)


def test_a_strike_that_moves_by_itself_changes_nothing() -> None:
    story = Story()
    assert story.tell(StrikeMoved("front", True), StrikeMoved("gate", False)) == []
    assert story.state == State()


def test_a_door_with_no_time_is_locked_in_the_same_step() -> None:
    story = Story(Policy({}, {"front": Door(0)}))
    assert story.tell(OpenRequested("front")) == [
        Release("front", 0),
        RecordAccess("front", "operator", "", True, ""),
        Lock("front"),
    ]
    assert story.tell(TimePassed()) == []


# Secrets


def test_codes_and_digits_are_never_shown() -> None:
    story = talking()
    story.type(1, "4711")
    shown = f"{DigitReceived(1, '4')!r} {POLICY!r} {story.state!r}"
    assert "4711" not in shown
    assert "digit=*" in shown
    assert "0*0" not in shown


def test_the_fifth_wrong_code_ends_the_call() -> None:
    story = Story()
    story.press()
    story.tell(CallAnswered(1))
    for _ in range(4):
        assert [type(action).__name__ for action in story.type(1, "1#")] == ["RecordAccess"]
    assert HangUp(1) in story.type(1, "1#")


def test_a_door_that_cannot_be_driven_is_not_said_to_be_released() -> None:
    story = Story()
    story.tell(HealthChanged("door 'front'", "pin 27 is in use by another program"))
    (refused,) = story.tell(OpenRequested("front"))
    assert isinstance(refused, RecordAccess)
    assert not refused.granted
    assert "in use" in refused.reason
    assert story.state.released == {}
