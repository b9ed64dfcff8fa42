"""Who is written to about what, what a written code opens, and what watchers see."""

from dataclasses import replace

import pytest

from intercom.core.access import written_code
from intercom.core.actions import Action, Presence, RecordAccess, Release, SendMessage, ShowPresence
from intercom.core.events import (
    CallAnswered,
    CallEnded,
    CallOffered,
    CallRang,
    HangUpRequested,
    HealthChanged,
    MessageReceived,
    OpenRequested,
    Stopped,
)
from intercom.core.policy import Door, Notice, Occasion
from tests.fakes import FLAT, FRONT_CODE, GATE_CODE, GUARD, OFFICE, POLICY, Story

EVERYTHING = replace(POLICY, notices=(Notice((FLAT,), frozenset(Occasion)),))
PUBLISHED = replace(POLICY, publishes=True)
BY_MESSAGE = replace(
    POLICY, doors={"front": Door(5, frozenset({FRONT_CODE}), by_message=True), "gate": POLICY.doors["gate"]}
)


def written(actions: list[Action]) -> list[str]:
    return [action.text for action in actions if isinstance(action, SendMessage)]


def shown(actions: list[Action]) -> list[ShowPresence]:
    return [action for action in actions if isinstance(action, ShowPresence)]


def accesses(actions: list[Action]) -> list[RecordAccess]:
    return [action for action in actions if isinstance(action, RecordAccess)]


# Messages to people


def test_a_press_is_written_once_however_many_addresses_are_rung() -> None:
    story = Story(EVERYTHING)
    assert written(story.press("office")) == ["somebody rings 'office'"]
    assert written(story.wait(20)) == []
    assert written(story.end(1, 487)) == []
    assert story.state.calls == 2


def test_what_is_written_comes_after_what_rings() -> None:
    actions = Story(EVERYTHING).press()
    assert [type(action).__name__ for action in actions][:2] == ["Dial", "SendMessage"]


def test_nobody_answered() -> None:
    story = Story(EVERYTHING)
    story.press("office")
    story.wait(20)
    story.end(1, 487)
    story.wait(15)
    assert written(story.end(2, 487)) == ["nobody answered 'office' (unreachable)"]


def test_a_refusal_is_a_missed_visit() -> None:
    story = Story(EVERYTHING)
    story.press()
    assert written(story.end(1, 486)) == ["nobody answered 'bell' (busy)"]


def test_a_visitor_who_was_answered_or_went_away_is_not_missed() -> None:
    story = Story(EVERYTHING)
    story.press()
    story.tell(CallRang(1), CallAnswered(1))
    assert written(story.end(1)) == []
    story.wait(10)
    story.press()
    assert written(story.tell(HangUpRequested())) == []
    assert written(story.end(2, 487)) == []


def test_another_button_is_another_visit() -> None:
    story = Story(EVERYTHING)
    story.press()
    assert written(story.press("office")) == ["somebody rings 'office'"]
    assert written(story.end(1, 487)) == []


def test_calls_without_a_button_are_nobodys_visit() -> None:
    story = Story(EVERYTHING)
    assert written(story.tell(CallOffered(-1, FLAT), CallEnded(-1, 487, "Cancelled"))) == []


def test_a_released_door_and_a_refused_code() -> None:
    story = Story(EVERYTHING)
    assert written(story.tell(OpenRequested("front"))) == ["door 'front' was released by operator"]
    again = "door 'front' was refused: already released, by operator"
    assert written(story.tell(OpenRequested("front"))) == [again]
    story.press()
    story.tell(CallAnswered(1))
    assert written(story.type(1, "1#")) == [f"a code was refused: wrong code, by dtmf of {FLAT}"]


def test_a_fault_is_written_when_it_begins() -> None:
    story = Story(EVERYTHING)
    assert written(story.tell(HealthChanged("sound", "no card"))) == ["fault: sound: no card"]
    assert written(story.tell(HealthChanged("sound", "no card at all"))) == []
    assert written(story.tell(HealthChanged("sound", None))) == []
    assert written(story.tell(HealthChanged("sound", "no card"))) == ["fault: sound: no card"]


def test_each_reader_is_told_once_and_only_what_concerns_him() -> None:
    rules = (
        Notice((FLAT, GUARD), frozenset({Occasion.PRESS}), frozenset({"bell"})),
        Notice((GUARD,), frozenset({Occasion.PRESS, Occasion.FAULT}), frozenset({"bell"})),
        Notice((OFFICE,), frozenset({Occasion.MISSED})),
    )
    story = Story(replace(POLICY, notices=rules))
    assert [action.to for action in story.press() if isinstance(action, SendMessage)] == [FLAT, GUARD]
    readers = story.tell(HealthChanged("sound", "no card"))
    assert [action.to for action in readers if isinstance(action, SendMessage)] == [GUARD]
    missed = story.end(1, 480)
    assert [action.to for action in missed if isinstance(action, SendMessage)] == [OFFICE]
    assert written(story.press("office")) == []


def test_two_events_that_are_late_are_both_written() -> None:
    """A deadline that is met only when the next event comes is still told."""
    story = Story(EVERYTHING)
    story.press()
    story.wait(25)
    story.now += 100
    assert written(story.tell(CallOffered(-1, FLAT))) == ["nobody answered 'bell' (unreachable)"]


# Codes in messages


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("4711#", "4711#"),
        ("4711", "4711#"),
        (" 4711# \r\n", "4711#"),
        ("*" * 15, "*" * 15 + "#"),
        ("1" * 16, None),
        ("", None),
        ("#", None),
        ("##", None),
        ("47 11", None),
        ("Open, please: 4711#", None),
        ("\udce9", None),
        ("٣", None),
    ],
)
def test_what_is_a_code(text: str, code: str | None) -> None:
    assert written_code(text) == code


def test_a_written_code_opens_its_door_at_any_time() -> None:
    story = Story(BY_MESSAGE)
    story.press()
    actions = story.tell(MessageReceived(FLAT, "4711", True))
    assert Release("front", 5) in actions
    assert RecordAccess("front", "message", FLAT, True, "") in actions


def test_a_door_that_is_not_for_messages_stays_locked_without_a_hint() -> None:
    story = Story(BY_MESSAGE)
    wrong = [RecordAccess(None, "message", FLAT, False, "wrong code")]
    assert story.tell(MessageReceived(FLAT, GATE_CODE, True)) == wrong
    assert story.tell(MessageReceived(FLAT, "1", True)) == wrong


def test_where_no_door_is_for_messages_nothing_is_looked_at() -> None:
    assert Story().tell(MessageReceived(FLAT, FRONT_CODE, True)) == []


def test_a_code_in_the_clear_opens_nothing() -> None:
    reason = "the message did not come over TLS"
    refused = [RecordAccess(None, "message", FLAT, False, reason)]
    assert Story(BY_MESSAGE).tell(MessageReceived(FLAT, FRONT_CODE, False)) == refused


def test_who_may_not_call_may_not_write() -> None:
    story = Story(BY_MESSAGE)
    assert story.tell(MessageReceived("sip:stranger@site.example", FRONT_CODE, True)) == []
    assert story.tell(MessageReceived("sip:", FRONT_CODE, True)) == []


def test_ordinary_words_are_no_wrong_codes() -> None:
    story = Story(BY_MESSAGE)
    assert story.tell(*[MessageReceived(FLAT, "I am coming", True)] * 10) == []
    assert story.state.wrong_messages == 0


def test_after_five_wrong_codes_messages_are_not_looked_at_for_longer_and_longer() -> None:
    story = Story(BY_MESSAGE)
    wrong = MessageReceived(FLAT, "1", True)
    assert len(accesses(story.tell(*[wrong] * 100))) == 5
    for seconds in (30, 60, 120, 240, 480, 900, 900):
        story.wait(seconds - 1)
        assert story.tell(wrong, MessageReceived(FLAT, FRONT_CODE, True)) == []
        story.wait(1)
        assert len(accesses(story.tell(wrong, wrong))) == 1
    story.wait(900)
    assert Release("front", 5) in story.tell(MessageReceived(FLAT, FRONT_CODE, True))
    assert story.state.wrong_messages == 0


def test_a_written_code_is_never_shown() -> None:
    assert "4711" not in repr(MessageReceived(FLAT, "4711#", True))


# Presence


def test_watchers_see_the_station_open_busy_and_open_again() -> None:
    story = Story(PUBLISHED)
    busy = [ShowPresence(Presence.BUSY, "in a call")]
    assert shown(story.press()) == busy
    assert shown(story.tell(CallRang(1), CallAnswered(1))) == []
    assert shown(story.end(1)) == [ShowPresence(Presence.OPEN, "")]
    assert shown(story.wait(60)) == []
    assert shown(story.tell(CallOffered(-1, FLAT))) == busy


def test_what_is_out_of_order_is_named_but_not_why() -> None:
    story = Story(PUBLISHED)
    closed = [ShowPresence(Presence.CLOSED, "out of order: sound")]
    assert shown(story.tell(HealthChanged("sound", "card 'x' is missing"))) == closed
    assert shown(story.press()) == []
    both = [ShowPresence(Presence.CLOSED, "out of order: door 'front', sound")]
    assert shown(story.tell(HealthChanged("door 'front'", "pin 27 is taken"))) == both
    story.tell(HealthChanged("sound", None))
    busy = [ShowPresence(Presence.BUSY, "in a call")]
    assert shown(story.tell(HealthChanged("door 'front'", None))) == busy


def test_an_account_that_is_not_registered_does_not_put_the_station_out_of_order() -> None:
    assert shown(Story(PUBLISHED).tell(HealthChanged("account door@site.example", "silence"))) == []


def test_watchers_see_that_it_is_switched_off() -> None:
    assert shown(Story(PUBLISHED).tell(Stopped())) == [ShowPresence(Presence.CLOSED, "switched off")]


def test_nobody_is_told_where_nothing_is_published() -> None:
    assert shown(Story().press()) == []
