"""What happens within a conversation: hold, silence, a warning, transfers, a second resident."""

from dataclasses import replace

import pytest

from intercom.core.access import may_talk
from intercom.core.actions import (
    Action,
    Answer,
    Connect,
    Dial,
    HangUp,
    Mix,
    Play,
    RecordAccess,
    RecordCall,
    RecordPress,
    Refuse,
    Release,
    ShowLamp,
    Warn,
)
from intercom.core.events import (
    CallAnswered,
    CallHeld,
    CallOffered,
    CallRang,
    CallReplaced,
    CallRequested,
    CallResumed,
    CallTransferred,
    HangUpRequested,
    SoundCame,
    SoundStopped,
    Stopped,
)
from intercom.core.guide import Hearing, Lamp, Tone
from intercom.core.policy import Caller, Mode
from intercom.core.ringing import Outcome
from intercom.core.state import Concluded, Ending, Idle, Moving, Talking
from tests.fakes import FLAT, GUARD, OFFICE, POLICY, Story

JOIN = replace(POLICY, join=True, callers={GUARD: Caller(), OFFICE: Caller()})


def talking(story: Story | None = None) -> Story:
    story = story or Story()
    story.press()
    story.tell(CallAnswered(1))
    return story


def talk(story: Story) -> Talking:
    assert isinstance(story.phase, Talking)
    return story.phase


def answered(
    peer: str, seconds: float, reason: str, direction: str = "out", button: str | None = "bell"
) -> RecordCall:
    return RecordCall(direction, button, peer, Outcome.ANSWERED, reason, seconds)


# Hold


def test_the_visitor_hears_that_he_waits_unless_the_far_side_plays_music() -> None:
    story = talking()
    assert story.tell(CallHeld(1)) == []
    assert story.tell(SoundStopped(1, 2.0)) == [Play(Tone.HOLD)]
    assert story.tell(SoundCame(1)) == [Play(Tone.SILENCE)]
    assert story.tell(SoundStopped(1, 2.0)) == [Play(Tone.HOLD)]
    assert story.tell(CallResumed(1)) == [Play(Tone.SILENCE)]
    assert story.lamp is Lamp.TALKING


def test_silence_on_hold_ends_nothing_before_its_time() -> None:
    story = talking()
    story.tell(CallHeld(1), SoundStopped(1, 0.0))
    assert story.wait(179) == []
    story.tell(CallHeld(1))  # once more
    assert story.wait(1) == [HangUp(1), ShowLamp(Lamp.READY), Play(Tone.SILENCE)]
    assert story.end(1)[0] == answered(FLAT, 180.0, "held for 180 s")


def test_who_comes_back_from_hold_has_time_to_be_heard() -> None:
    story = talking()
    story.tell(CallHeld(1), SoundStopped(1, 0.0))
    story.wait(100)
    story.tell(CallResumed(1))
    assert story.wait(9.4) == []
    assert story.wait(0.2)[0] == HangUp(1)


def test_to_resume_what_was_heard_all_the_time_starts_no_clock() -> None:
    story = talking()
    story.tell(CallHeld(1), CallResumed(1))
    assert story.wait(100) == []


def test_a_digit_on_hold_counts() -> None:
    story = talking()
    story.tell(CallHeld(1))
    assert Release("front", 5) in story.type(1, "4711#")


@pytest.mark.parametrize("event", [CallHeld(1), CallResumed(1), SoundStopped(1, 2.0), SoundCame(1)], ids=repr)
def test_what_is_said_of_a_call_that_is_over_changes_nothing(event: CallHeld) -> None:
    story = Story()
    before = story.state
    assert story.tell(event) == []
    assert story.state == before


# Silence


def test_a_far_side_that_is_silent_has_gone() -> None:
    story = talking()
    story.wait(60)
    story.tell(SoundStopped(1, 2.0))
    assert story.wait(7.4) == []
    assert story.wait(0.2)[0] == HangUp(1)
    ended = story.end(1, 408, "Request Timeout")
    assert ended[0] == answered(FLAT, 67.5, "no sound has come from the far side for 10 s")


def test_a_break_is_forgiven() -> None:
    story = talking()
    story.tell(SoundStopped(1, 2.0))
    story.wait(7)
    story.tell(SoundCame(1))
    assert story.wait(60) == []


# The time


def test_both_sides_are_warned_before_the_time_is_up() -> None:
    story = talking()
    assert story.wait(289.9) == []
    assert story.wait(0.2) == [Warn((1,))]
    assert story.wait(9.8) == []
    assert story.wait(0.2)[0] == HangUp(1)
    assert story.end(1)[0] == answered(FLAT, 300.0, "the talk time is up")


def test_a_short_time_is_warned_of_in_its_middle() -> None:
    story = talking(Story(replace(POLICY, talk_seconds=10)))
    assert story.wait(4.9) == []
    assert story.wait(0.2) == [Warn((1,))]


# Transfer


def test_a_visitor_is_sent_to_somebody_else() -> None:
    story = talking()
    story.wait(20)
    assert story.tell(CallTransferred(1, -1, OFFICE)) == [Play(Tone.RINGBACK)]
    assert story.lamp is Lamp.TALKING, "the one who talked still hears the door"
    assert story.tell(CallRang(-1)) == []
    story.wait(5)
    assert story.tell(CallAnswered(-1)) == [
        HangUp(1),
        answered(FLAT, 25.0, f"transferred to {OFFICE}"),
        Play(Tone.SILENCE),
        Connect(-1, Hearing.TALK),
    ]
    assert story.end(1) == []
    story.wait(10)
    assert story.end(-1)[0] == answered(OFFICE, 10.0, "OK")


def test_early_media_of_the_next_one_is_heard() -> None:
    story = talking()
    story.tell(CallTransferred(1, -1, OFFICE))
    assert story.tell(CallRang(-1, early_media=True)) == [
        Play(Tone.SILENCE),
        Connect(-1, Hearing.SPEAKER),
    ]
    assert story.tell(CallRang(-1)) == []
    assert story.tell(CallRang(-7)) == []


def test_the_old_call_goes_on_when_the_new_one_fails() -> None:
    story = talking()
    story.tell(CallHeld(1), SoundStopped(1, 2.0), CallTransferred(1, -1, OFFICE))
    assert story.tone is Tone.RINGBACK
    assert story.end(-1, 486, "Busy Here") == [
        RecordCall("out", "bell", OFFICE, Outcome.BUSY, "Busy Here", 0.0),
        Play(Tone.HOLD),
    ]
    story.tell(CallResumed(1))
    assert talk(story).call == 1


def test_the_old_call_goes_on_when_nobody_answers_the_new_one() -> None:
    story = talking()
    story.tell(CallTransferred(1, -1, OFFICE))
    assert story.wait(30) == [
        HangUp(-1),
        RecordCall("out", "bell", OFFICE, Outcome.NO_ANSWER, "no answer in time", 0.0),
        Play(Tone.SILENCE),
    ]
    assert story.end(-1, 487) == []


@pytest.mark.parametrize(("seconds", "again"), [(1.9, True), (2.1, False)])
def test_a_telephone_that_hangs_up_because_the_transfer_failed_loses_nobody(
    seconds: float, again: bool
) -> None:
    story = talking()
    story.tell(CallTransferred(1, -1, OFFICE))
    story.end(-1, 486, "Busy Here")
    story.wait(seconds)
    assert (Dial(2, FLAT) in story.end(1)) is again


def test_the_visitor_waits_for_the_next_one_when_the_first_has_gone() -> None:
    story = talking()
    story.wait(20)
    story.tell(CallTransferred(1, -1, OFFICE))
    assert story.end(1) == [answered(FLAT, 20.0, f"transferred to {OFFICE}"), ShowLamp(Lamp.CALLING)]
    assert isinstance(story.phase, Moving)
    assert story.tell(CallRang(-1)) == [ShowLamp(Lamp.RINGING)]
    assert story.tell(CallRang(-7), CallAnswered(-7)) == []
    assert story.end(-7) == []
    assert story.tell(CallAnswered(-1)) == [
        ShowLamp(Lamp.TALKING),
        Play(Tone.SILENCE),
        Connect(-1, Hearing.TALK),
    ]
    assert (talk(story).call, talk(story).peer, talk(story).button) == (-1, OFFICE, "bell")


def test_the_bell_rings_again_when_the_first_has_gone_and_the_next_one_fails() -> None:
    story = talking()
    story.tell(CallTransferred(1, -1, OFFICE))
    story.end(1)
    assert story.end(-1, 404, "Not Found") == [
        Dial(2, FLAT),
        RecordCall("out", "bell", OFFICE, Outcome.NOT_FOUND, "Not Found", 0.0),
        Play(Tone.HEARD),
    ]


def test_the_bell_rings_again_when_the_first_has_gone_and_nobody_answers() -> None:
    story = talking()
    story.tell(CallTransferred(1, -1, OFFICE))
    story.end(1)
    assert story.wait(30)[0] == HangUp(-1)
    assert Dial(2, FLAT) in story.end(-1, 487, "Request Terminated")


@pytest.mark.parametrize(("rings", "tone"), [(0, Tone.NOT_FOUND), (30, Tone.NO_ANSWER)])
def test_a_visitor_without_a_button_hears_why(rings: float, tone: Tone) -> None:
    story = Story()
    story.tell(CallRequested(FLAT), CallAnswered(1), CallTransferred(1, -1, OFFICE))
    story.end(1)
    story.wait(rings)
    story.end(-1, 404, "Not Found")
    assert isinstance(story.phase, Concluded)
    assert story.tone is tone


def test_only_one_transfer_at_a_time_and_none_by_others() -> None:
    story = talking()
    assert story.tell(CallTransferred(7, -1, OFFICE)) == [HangUp(-1)]
    story.tell(CallTransferred(1, -2, OFFICE))
    assert story.tell(CallTransferred(1, -3, GUARD)) == [HangUp(-3)]
    assert Story().tell(CallTransferred(1, -1, OFFICE)) == [HangUp(-1)]


def test_a_call_is_taken_over_without_a_tone() -> None:
    story = talking()
    assert story.tell(CallReplaced(1, -1, OFFICE)) == []
    story.end(1)
    assert story.tone is Tone.SILENCE
    story.tell(CallAnswered(-1))
    assert story.end(-1)[0] == answered(OFFICE, 0.0, "OK", "in")


def test_a_press_ends_a_transfer_in_both_places() -> None:
    story = talking()
    story.tell(CallTransferred(1, -1, OFFICE))
    story.wait(5)
    assert story.press()[:3] == [
        HangUp(1),
        HangUp(-1),
        RecordCall("out", "bell", OFFICE, Outcome.CANCELLED, "hung up", 0.0),
    ]
    assert isinstance(story.phase, Ending)


def test_a_press_gives_up_waiting_for_the_next_one_but_not_somebody_elses() -> None:
    story = talking()
    story.wait(5)
    story.tell(CallTransferred(1, -1, OFFICE))
    story.end(1)
    assert story.press("office") == [RecordPress("office", "somebody else's visitor is put through")]
    story.wait(3)
    assert story.press()[0] == HangUp(-1)
    assert story.end(-1, 487, "Request Terminated")[0] == RecordCall(
        "out", "bell", OFFICE, Outcome.CANCELLED, "Request Terminated", 0.0
    )


def test_an_operator_gives_up_waiting_for_the_next_one() -> None:
    story = talking()
    story.tell(CallTransferred(1, -1, OFFICE))
    story.end(1)
    assert story.tell(HangUpRequested())[0] == HangUp(-1)


def test_stopping_ends_both_calls_of_a_transfer() -> None:
    story = talking()
    story.tell(CallTransferred(1, -1, OFFICE))
    assert [each for each in story.tell(Stopped()) if isinstance(each, HangUp)] == [HangUp(1), HangUp(-1)]


def test_stopping_ends_the_call_that_is_awaited() -> None:
    story = talking()
    story.tell(CallTransferred(1, -1, OFFICE))
    story.end(1)
    assert story.tell(Stopped())[:2] == [
        HangUp(-1),
        RecordCall("out", "bell", OFFICE, Outcome.CANCELLED, "stopped", 0.0),
    ]


@pytest.mark.parametrize(
    ("peer", "may"),
    [
        ("sip:anybody@home.example", True),
        ("sip:anybody@192.0.2.7", True),
        ("sip:+4930123@trunk.example", True),
        ("SIP:Anybody@Home.Example", True),
        ("sip:anybody@trunk.example", False),
        ("sip:@home.example", False),
        ("sip:home.example", False),
        ("sips:anybody@home.example", False),
        ("tel:+4930123", False),
        ("", False),
    ],
)
def test_whom_a_visitor_may_be_sent_to(peer: str, may: bool) -> None:
    known, hosts = frozenset({"sip:+4930123@trunk.example"}), frozenset({"home.example", "192.0.2.7"})
    assert may_talk(known, hosts, peer) is may


# A second resident


def joined(story: Story | None = None) -> Story:
    story = talking(story or Story(JOIN))
    story.wait(10)
    assert story.tell(CallOffered(-1, GUARD)) == [Answer(-1)]
    assert story.tell(CallAnswered(-1)) == [Mix((1, -1)), Connect(-1, Hearing.TALK)]
    return story


def test_a_second_resident_hears_busy_unless_the_settings_let_him_join() -> None:
    assert talking(Story(replace(JOIN, join=False))).tell(CallOffered(-1, GUARD)) == [Refuse(-1, 486)]


def test_who_only_listens_does_not_join() -> None:
    story = talking(Story(replace(JOIN, callers={GUARD: Caller(mode=Mode.LISTEN)})))
    assert story.tell(CallOffered(-1, GUARD)) == [Refuse(-1, 486)]


def test_a_second_resident_joins_and_either_may_leave() -> None:
    story = joined()
    story.wait(5)
    assert story.end(-1) == [answered(GUARD, 5.0, "OK", "in", None)]
    story = joined()
    story.wait(5)
    assert story.end(1) == [answered(FLAT, 15.0, "OK")]
    assert (talk(story).call, talk(story).button) == (-1, "bell")
    story.wait(5)
    assert story.end(-1)[0] == answered(GUARD, 10.0, "OK", "in")


def test_with_a_third_there_are_three_and_no_more() -> None:
    story = joined()
    story.tell(CallOffered(-2, OFFICE))
    assert story.tell(CallOffered(-3, OFFICE)) == [Refuse(-3, 486)]
    assert story.tell(CallAnswered(-2)) == [Mix((1, -1, -2)), Connect(-2, Hearing.TALK)]
    assert story.tell(CallOffered(-4, OFFICE)) == [Refuse(-4, 486)]
    assert story.end(1)[1] == Mix((-1, -2))


def test_nobody_joins_while_the_visitor_is_sent_elsewhere() -> None:
    story = talking(Story(JOIN))
    story.tell(CallTransferred(1, -1, OFFICE))
    assert story.tell(CallOffered(-2, GUARD)) == [Refuse(-2, 486)]


def test_a_visitor_who_talks_with_two_is_sent_nowhere() -> None:
    assert joined().tell(CallTransferred(1, -2, OFFICE)) == [HangUp(-2)]


@pytest.mark.parametrize("late", [True, False])
def test_who_does_not_get_in_changes_nothing(late: bool) -> None:
    story = talking(Story(JOIN))
    before = story.phase
    story.tell(CallOffered(-1, GUARD), CallOffered(-2, GUARD))
    if late:
        assert story.wait(30) == [HangUp(-1), HangUp(-2)]
    else:
        assert story.end(-1, 487, "Request Terminated") == []
        story.end(-2, 487, "Request Terminated")
    assert story.phase == before


def test_one_on_hold_leaves_the_others_talking() -> None:
    story = joined()
    assert story.tell(CallHeld(1), SoundStopped(1, 2.0)) == [], "the second talks: no tone"
    assert story.wait(180) == [HangUp(1), answered(FLAT, 190.0, "held for 180 s")]
    assert talk(story).parties[0].call == -1


def test_one_who_vanishes_leaves_the_others_talking() -> None:
    story = joined()
    story.tell(SoundStopped(-1, 2.0))
    assert story.wait(8) == [
        HangUp(-1),
        answered(GUARD, 7.5, "no sound has come from the far side for 10 s", "in", None),
    ]
    assert talk(story).others == ()


def test_either_opens_the_door_and_their_digits_do_not_mix() -> None:
    story = joined()
    story.type(1, "47")
    story.type(-1, "11")
    assert story.type(-1, "#") == [RecordAccess(None, "dtmf", GUARD, False, "wrong code")]
    assert Release("front", 5) in story.type(1, "11#")
    assert RecordAccess("gate", "dtmf", GUARD, True, "") in story.type(-1, "0*0#")


def test_the_end_of_the_time_is_the_end_for_all() -> None:
    story = joined()
    done: list[Action] = story.wait(290)
    assert done[:4] == [
        Warn((1, -1)),
        HangUp(1),
        HangUp(-1),
        answered(GUARD, 290.0, "the talk time is up", "in", None),
    ]
    story.end(1)
    story.wait(3)
    assert isinstance(story.phase, Idle)


def test_who_was_about_to_join_when_it_ended_is_let_go() -> None:
    story = talking(Story(JOIN))
    story.tell(CallOffered(-1, GUARD))
    assert story.end(1)[:2] == [
        HangUp(-1),
        RecordCall("in", None, GUARD, Outcome.CANCELLED, "OK", 0.0),
    ]


def test_a_transfer_lengthens_nothing_and_forgives_no_code() -> None:
    story = talking()
    until = talk(story).until
    story.type(1, "1#")
    story.wait(1)
    story.tell(CallTransferred(1, -1, OFFICE), CallAnswered(-1))
    assert (talk(story).until, talk(story).wrong) == (until, 1)
    story.tell(CallTransferred(-1, -2, FLAT))
    story.end(-1)
    story.tell(CallAnswered(-2))
    assert (talk(story).until, talk(story).wrong) == (until, 1)


def test_who_takes_a_call_over_hears_no_more_than_he_may() -> None:
    callers = {OFFICE: Caller(mode=Mode.ANNOUNCE), GUARD: Caller()}
    story = talking(Story(policy=replace(POLICY, callers=callers)))
    story.tell(CallReplaced(1, -1, OFFICE), CallAnswered(-1))
    assert talk(story).mode is Mode.ANNOUNCE
    story.end(1)
    story.tell(CallReplaced(-1, -2, GUARD), CallAnswered(-2))
    assert talk(story).mode is Mode.ANNOUNCE
