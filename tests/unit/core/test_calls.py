"""How calls go: out, in, and every way in which they end."""

from typing import cast

import pytest

from intercom.core.access import caller_of
from intercom.core.actions import (
    Alert,
    Answer,
    Connect,
    Dial,
    HangUp,
    Lock,
    Play,
    RecordCall,
    Refuse,
    Release,
    ShowLamp,
    Warn,
)
from intercom.core.events import (
    ButtonDown,
    ButtonPressed,
    CallAnswered,
    CallEnded,
    CallOffered,
    CallRang,
    CallRequested,
    CallTransferred,
    Event,
    HangUpRequested,
    HealthChanged,
    OpenRequested,
    Stopped,
    StrikeMoved,
    TimePassed,
)
from intercom.core.guide import Hearing, Lamp, Tone
from intercom.core.policy import Caller, Mode, Policy
from intercom.core.ringing import Outcome
from intercom.core.state import Calling, Concluded, Idle, Off, Offered, Talking, next_deadline
from tests.fakes import FLAT, GUARD, OFFICE, POLICY, Story

# Out


def test_a_visit() -> None:
    story = Story()
    assert story.press() == [Dial(1, FLAT), ShowLamp(Lamp.CALLING), Play(Tone.HEARD)]
    assert story.tell(CallRang(1)) == [ShowLamp(Lamp.RINGING), Play(Tone.RINGBACK)]
    assert story.tell(CallAnswered(1)) == [
        ShowLamp(Lamp.TALKING),
        Play(Tone.SILENCE),
        Connect(1, Hearing.TALK),
    ]
    story.wait(12)
    assert story.end(1) == [
        RecordCall("out", "bell", FLAT, Outcome.ANSWERED, "OK", 12.0),
        ShowLamp(Lamp.READY),
        Play(Tone.END),
    ]
    assert story.wait(3) == [Play(Tone.SILENCE)]
    assert isinstance(story.phase, Idle)


def test_early_media_silences_our_own_tone_for_good() -> None:
    story = Story()
    story.press()
    assert story.tell(CallRang(1, early_media=True)) == [
        ShowLamp(Lamp.RINGING),
        Play(Tone.SILENCE),
        Connect(1, Hearing.SPEAKER),
    ]
    assert story.tell(CallRang(1)) == []
    assert story.tone is Tone.SILENCE


@pytest.mark.parametrize(
    ("status", "rang", "outcome"),
    [
        (486, True, Outcome.BUSY),
        (600, True, Outcome.BUSY),
        (403, False, Outcome.REJECTED),
        (433, False, Outcome.REJECTED),
        (603, True, Outcome.REJECTED),
        (607, True, Outcome.REJECTED),
        (404, False, Outcome.NOT_FOUND),
        (410, False, Outcome.NOT_FOUND),
        (484, False, Outcome.NOT_FOUND),
        (485, False, Outcome.NOT_FOUND),
        (604, False, Outcome.NOT_FOUND),
        (408, True, Outcome.NO_ANSWER),
        (480, True, Outcome.NO_ANSWER),
        (487, True, Outcome.NO_ANSWER),
        (408, False, Outcome.UNREACHABLE),
        (480, False, Outcome.UNREACHABLE),
        (430, False, Outcome.UNREACHABLE),
        (502, False, Outcome.UNREACHABLE),
        (503, False, Outcome.UNREACHABLE),
        (504, False, Outcome.UNREACHABLE),
        (488, False, Outcome.FAILED),
        (500, True, Outcome.FAILED),
        (0, False, Outcome.FAILED),
    ],
)
def test_each_end_of_a_call_has_its_own_lamp_and_tone(status: int, rang: bool, outcome: Outcome) -> None:
    story = Story()
    story.press()
    if rang:
        story.tell(CallRang(1))
    assert story.end(1, status, "why") == [
        RecordCall("out", "bell", FLAT, outcome, "why", 0.0),
        ShowLamp(Lamp(outcome.value)),
        Play(Tone(outcome.value)),
    ]
    assert story.wait(POLICY.outcome_seconds) == [ShowLamp(Lamp.READY), Play(Tone.SILENCE)]


def test_a_hang_up_that_is_never_confirmed_counts_as_done() -> None:
    story = Story()
    story.press()
    story.wait(3)
    story.press()
    assert story.wait(4.9) == []
    assert story.wait(0.2) == [
        RecordCall("out", "bell", FLAT, Outcome.CANCELLED, "no word from the SIP side", 0.0),
        Play(Tone.END),
    ]


def test_an_answer_that_crosses_our_hang_up_opens_no_microphone() -> None:
    story = Story()
    story.press()
    story.wait(3)
    story.press()
    assert story.tell(CallRang(1), CallAnswered(1)) == []
    assert story.lamp is Lamp.READY


def test_the_longest_talk_is_ended() -> None:
    story = Story()
    story.press()
    story.tell(CallAnswered(1))
    assert story.wait(299) == [Warn((1,))]
    assert story.wait(1) == [HangUp(1), ShowLamp(Lamp.READY)]
    assert story.end(1) == [
        RecordCall("out", "bell", FLAT, Outcome.ANSWERED, "the talk time is up", 300.0),
        Play(Tone.END),
    ]


def test_an_operator_places_a_call_and_ends_it() -> None:
    story = Story()
    assert story.tell(CallRequested(OFFICE)) == [Dial(1, OFFICE), ShowLamp(Lamp.CALLING), Play(Tone.HEARD)]
    assert story.tell(CallRequested(FLAT)) == []
    assert story.tell(HangUpRequested()) == [HangUp(1), ShowLamp(Lamp.READY), Play(Tone.SILENCE)]
    assert story.end(1, 487, "Request Terminated") == [
        RecordCall("out", None, OFFICE, Outcome.CANCELLED, "Request Terminated", 0.0),
        Play(Tone.END),
    ]
    assert story.tell(CallRequested(FLAT))[0] == Dial(2, FLAT)


def test_an_operators_call_rings_for_as_long_as_an_incoming_one() -> None:
    story = Story()
    story.tell(CallRequested(OFFICE))
    assert story.wait(29.9) == []
    assert HangUp(1) in story.wait(0.2)


def test_an_operator_ends_a_talk() -> None:
    story = Story()
    story.press()
    story.tell(CallAnswered(1))
    assert HangUp(1) in story.tell(HangUpRequested())


def test_an_operator_who_hangs_up_takes_back_what_would_be_rung_next() -> None:
    story = Story()
    story.press()
    story.wait(3)
    story.press("office")
    assert story.tell(HangUpRequested()) == [ShowLamp(Lamp.READY)]
    assert not any(isinstance(action, Dial) for action in story.end(1, 487, "Request Terminated"))


def test_there_is_nothing_to_hang_up_while_idle() -> None:
    assert Story().tell(HangUpRequested()) == []


# In


def test_who_may_call() -> None:
    one, others = Caller(automatic=True), Caller(mode=Mode.ANNOUNCE)
    callers = {FLAT: one, "sip:*@site.example": others}
    assert caller_of(callers, "sip:FLAT1@Site.Example") is one
    assert caller_of(callers, "sip:anyone@site.example") is others
    assert caller_of(callers, "sip:flat1@home.example") is None
    assert caller_of(callers, "sip:site.example") is None
    assert caller_of(callers, "@site.example") is None
    assert caller_of(callers, "sip:flat1@") is None
    assert caller_of(callers, "") is None
    assert caller_of({}, FLAT) is None


def test_who_is_not_permitted_is_refused_whatever_the_station_does() -> None:
    story = Story()
    assert story.tell(CallOffered(-1, GUARD)) == [Refuse(-1, 403)]
    story.press()
    assert story.tell(CallOffered(-2, GUARD)) == [Refuse(-2, 403)]


def test_a_permitted_caller_rings_at_the_door_and_a_press_answers() -> None:
    story = Story()
    assert story.tell(CallOffered(-1, FLAT)) == [Alert(-1), ShowLamp(Lamp.RINGING), Play(Tone.DOORBELL)]
    story.wait(5)
    assert story.press() == [Answer(-1), Play(Tone.SILENCE)]
    story.wait(3)
    assert story.press() == [], "the answer is on its way"
    assert story.tell(CallAnswered(-1)) == [ShowLamp(Lamp.TALKING), Connect(-1, Hearing.TALK)]
    story.wait(7)
    assert story.end(-1) == [
        RecordCall("in", None, FLAT, Outcome.ANSWERED, "OK", 7.0),
        ShowLamp(Lamp.READY),
        Play(Tone.END),
    ]


def test_a_press_answers_however_soon_it_comes_after_another() -> None:
    story = Story()
    story.press()
    story.end(1, 486, "Busy Here")
    story.tell(CallOffered(-1, FLAT))
    assert story.press()[0] == Answer(-1)


def test_without_a_press_nothing_is_answered() -> None:
    story = Story()
    story.tell(CallOffered(-1, FLAT))
    assert story.tell(CallAnswered(-1)) == []
    assert story.phase == Offered(-1, FLAT, until=1030.0)


def test_automatic_answering() -> None:
    story = Story(Policy(POLICY.buttons, POLICY.doors, {FLAT: Caller(automatic=True)}))
    assert story.tell(CallOffered(-1, FLAT)) == [Answer(-1), ShowLamp(Lamp.RINGING)]
    assert story.tell(CallAnswered(-1)) == [ShowLamp(Lamp.TALKING), Connect(-1, Hearing.TALK)]


@pytest.mark.parametrize("automatic", [True, False])
@pytest.mark.parametrize(
    ("mode", "lamp", "hearing"),
    [
        (Mode.LISTEN, Lamp.TALKING, Hearing.MICROPHONE),
        (Mode.ANNOUNCE, Lamp.ANNOUNCEMENT, Hearing.SPEAKER),
    ],
)
def test_one_way_calls_and_the_lamp_that_tells_of_the_microphone(
    mode: Mode, lamp: Lamp, hearing: Hearing, automatic: bool
) -> None:
    story = Story(Policy(POLICY.buttons, POLICY.doors, {FLAT: Caller(automatic, mode)}))
    taken = story.tell(CallOffered(-1, FLAT)) if automatic else []
    if not automatic:
        story.tell(CallOffered(-1, FLAT))
        taken = story.press()
    assert taken[0] == Answer(-1)
    assert story.tell(CallAnswered(-1)) == [ShowLamp(lamp), Connect(-1, hearing)]
    story.wait(3)
    assert story.press()[0] == HangUp(-1)


def test_it_is_kept_who_sent_a_call_on() -> None:
    story = Story()
    story.tell(CallOffered(-1, FLAT, GUARD))
    assert story.end(-1, 487, "Request Terminated")[0] == RecordCall(
        "in", None, FLAT, Outcome.CANCELLED, "Request Terminated", 0.0, GUARD
    )
    story.tell(CallOffered(-2, FLAT, GUARD))
    story.press()
    story.tell(CallAnswered(-2))
    assert story.end(-2)[0] == RecordCall("in", None, FLAT, Outcome.ANSWERED, "OK", 0.0, GUARD)


def test_an_incoming_call_that_nobody_answers_is_ended() -> None:
    story = Story()
    story.tell(CallOffered(-1, FLAT))
    assert story.wait(30) == [HangUp(-1), ShowLamp(Lamp.READY), Play(Tone.SILENCE)]
    assert story.end(-1, 480, "Temporarily Unavailable") == [
        RecordCall("in", None, FLAT, Outcome.NO_ANSWER, "Temporarily Unavailable", 0.0),
        ShowLamp(Lamp.NO_ANSWER),
        Play(Tone.NO_ANSWER),
    ]


def test_a_caller_who_gives_up() -> None:
    story = Story()
    story.tell(CallOffered(-1, FLAT))
    assert story.end(-1, 487, "Request Terminated") == [
        RecordCall("in", None, FLAT, Outcome.CANCELLED, "Request Terminated", 0.0),
        ShowLamp(Lamp.READY),
        Play(Tone.END),
    ]


def test_an_operator_turns_a_caller_away() -> None:
    story = Story()
    story.tell(CallOffered(-1, FLAT))
    assert story.tell(HangUpRequested())[0] == HangUp(-1)


@pytest.mark.parametrize("now", ["calling", "talking", "ending", "offered"])
def test_a_second_caller_hears_busy(now: str) -> None:
    story = Story()
    story.press()
    story.wait(3)
    if now == "talking":
        story.tell(CallAnswered(1))
    elif now != "calling":
        story.press()
    if now == "offered":
        story.end(1, 487, "Request Terminated")
        story.tell(CallOffered(-2, FLAT))
    before = story.state
    assert story.tell(CallOffered(-1, FLAT)) == [Refuse(-1, 486)]
    assert story.state == before


def test_a_caller_is_taken_while_the_last_outcome_is_shown() -> None:
    story = Story()
    story.press()
    story.end(1, 486, "Busy Here")
    assert story.tell(CallOffered(-1, FLAT)) == [Alert(-1), ShowLamp(Lamp.RINGING), Play(Tone.DOORBELL)]


# Old numbers


@pytest.mark.parametrize(
    "late", [CallRang(7), CallRang(7, True), CallAnswered(7), CallEnded(7, 200, "OK")], ids=repr
)
@pytest.mark.parametrize("now", ["idle", "calling", "talking", "offered", "accepted", "ending", "concluded"])
def test_what_is_said_about_another_call_changes_nothing(now: str, late: Event) -> None:
    story = Story()
    if now in ("offered", "accepted"):
        story.tell(CallOffered(-1, FLAT))
        if now == "accepted":
            story.press()
    elif now != "idle":
        story.press()
        story.wait(3)
        if now == "talking":
            story.tell(CallAnswered(1))
        elif now == "ending":
            story.press()
        elif now == "concluded":
            story.end(1, 486, "Busy Here")
    before = story.state
    assert story.tell(late) == []
    assert story.state == before


# Faults


def test_a_fault_is_shown_only_while_nothing_else_is() -> None:
    story = Story()
    assert story.tell(HealthChanged("sound", "no card")) == [ShowLamp(Lamp.FAULT)]
    assert story.tell(HealthChanged("account", "silent")) == []
    assert story.state.faults == {"sound": "no card", "account": "silent"}
    assert story.press() == [Dial(1, FLAT), ShowLamp(Lamp.CALLING), Play(Tone.HEARD)]
    story.end(1, 503, "Service Unavailable")
    assert story.wait(3) == [ShowLamp(Lamp.FAULT), Play(Tone.SILENCE)]
    assert story.tell(HealthChanged("sound", None)) == []
    assert story.tell(HealthChanged("account", None)) == [ShowLamp(Lamp.READY)]
    assert story.tell(HealthChanged("account", None)) == []


# The end


def test_stopping_ends_a_talk_locks_the_doors_and_darkens_the_lamp() -> None:
    story = Story()
    story.press()
    story.tell(CallAnswered(1))
    story.wait(10)
    story.tell(OpenRequested("front"), OpenRequested("gate"))
    story.wait(1)
    assert story.tell(Stopped()) == [
        Lock("front"),
        Lock("gate"),
        HangUp(1),
        RecordCall("out", "bell", FLAT, Outcome.ANSWERED, "stopped", 11.0),
        ShowLamp(Lamp.DARK),
        Play(Tone.SILENCE),
    ]


def test_stopping_cancels_a_call_that_rings() -> None:
    story = Story()
    story.press()
    assert story.tell(Stopped())[:2] == [
        HangUp(1),
        RecordCall("out", "bell", FLAT, Outcome.CANCELLED, "stopped", 0.0),
    ]


def test_stopping_turns_a_caller_away() -> None:
    story = Story()
    story.tell(CallOffered(-1, FLAT))
    assert story.tell(Stopped())[:2] == [
        HangUp(-1),
        RecordCall("in", None, FLAT, Outcome.CANCELLED, "stopped", 0.0),
    ]


def test_stopping_during_a_hang_up_still_records_the_call() -> None:
    story = Story()
    story.press()
    story.tell(CallAnswered(1))
    story.wait(10)
    story.press()
    assert story.tell(Stopped()) == [
        RecordCall("out", "bell", FLAT, Outcome.ANSWERED, "stopped", 10.0),
        ShowLamp(Lamp.DARK),
    ]


def test_stopping_while_idle() -> None:
    assert Story().tell(Stopped()) == [ShowLamp(Lamp.DARK)]


def test_after_the_end_nothing_is_accepted_any_more() -> None:
    story = Story()
    story.press()
    story.tell(HealthChanged("sound", "no card"), Stopped())
    before = story.state
    assert before.faults == {"sound": "no card"}
    assert story.tell(CallOffered(-1, FLAT)) == [Refuse(-1, 480)]
    assert story.tell(CallTransferred(1, -2, FLAT)) == [HangUp(-2)]
    everything_else = (
        TimePassed(),
        ButtonDown("bell"),
        ButtonPressed("bell"),
        CallRequested(FLAT),
        OpenRequested("front"),
        CallAnswered(1),
        CallEnded(1, 487, "Request Terminated"),
        StrikeMoved("front", True),
        HealthChanged("sound", None),
        Stopped(),
    )
    assert story.tell(*everything_else) == []
    assert story.state == before
    assert isinstance(story.phase, Off)
    assert next_deadline(story.state, POLICY.settle_seconds) is None


# Time


def test_a_late_timer_meets_every_deadline_the_earliest_first() -> None:
    story = Story()
    story.tell(OpenRequested("front"), OpenRequested("gate"))
    story.press()
    story.now += 3600
    assert story.tell(TimePassed()) == [
        Lock("gate"),
        Lock("front"),
        HangUp(1),
        ShowLamp(Lamp.READY),
        Play(Tone.SILENCE),
    ]


def test_time_that_passes_without_a_deadline_changes_nothing() -> None:
    story = Story()
    story.press()
    before = story.state
    assert story.tell(TimePassed()) == []
    assert story.state == before


def test_the_record_of_a_released_door_lamp_comes_back_to_what_happens_meanwhile() -> None:
    story = Story()
    story.tell(OpenRequested("front"))
    assert story.press() == [Dial(1, FLAT)], "an open door is shown above all else"
    assert story.wait(5) == [Lock("front"), ShowLamp(Lamp.CALLING), Play(Tone.HEARD)]


@pytest.mark.parametrize("kind", [Calling, Concluded, Talking])
def test_an_open_door_is_shown_above_every_phase(kind: type) -> None:
    story = Story()
    story.press()
    if kind is Talking:
        story.tell(CallAnswered(1))
    elif kind is Concluded:
        story.end(1, 404, "Not Found")
    assert isinstance(story.phase, kind)
    assert story.tell(OpenRequested("gate"))[0] == Release("gate", 3)
    assert (story.lamp, story.tone) == (Lamp.DOOR_OPEN, Tone.DOOR_OPEN)


def test_what_is_no_event_is_a_mistake_of_the_program() -> None:
    with pytest.raises(AssertionError, match="unreachable"):
        Story().tell(cast("Event", "a word"))
