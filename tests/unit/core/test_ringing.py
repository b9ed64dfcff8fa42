"""Lists of addresses: who rings when, whose answer counts, and where redirections lead."""

import pytest

from intercom.core.actions import Action, Connect, Dial, HangUp, Play, RecordCall, RecordRing, ShowLamp
from intercom.core.events import (
    CallAnswered,
    CallEnded,
    CallRang,
    CallRequested,
    DigitReceived,
    HangUpRequested,
    HoursChanged,
    Stopped,
)
from intercom.core.guide import Hearing, Lamp, Tone
from intercom.core.policy import Plan, Policy, Target
from intercom.core.ringing import MOST_HOPS, Outcome, most_telling
from intercom.core.state import Calling, Concluded, Ending, Idle, Talking
from tests.fakes import FLAT, GUARD, OFFICE, POLICY, Story

TRUNK = "sip:+49891234@site.example"
MOBILE, DESK = "sip:mobile@site.example", "sip:desk@partner.example:5070;transport=tcp"


def story(
    *targets: Target, rounds: int = 1, last_resort: Target | None = None, confirm: bool = False
) -> Story:
    """A station with one button, pressed."""
    plan = Plan(targets, rounds, last_resort, confirm)
    permitted = frozenset({"sip:*@site.example", "sip:desk@partner.example"})
    told = Story(Policy({"bell": plan, "office": Plan((Target(OFFICE, 20),))}, {}, redirects=permitted))
    told.press()
    return told


def both(**options: object) -> Story:
    return story(Target(FLAT, 25), Target(OFFICE, 10, together=True), **options)  # type: ignore[arg-type]


def of(kind: type, actions: list[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, kind)]


def dialled(actions: list[Action]) -> list[str]:
    return [action.to for action in actions if isinstance(action, Dial)]


def moved(*contacts: str, call: int = 1, status: int = 302) -> CallEnded:
    return CallEnded(call, status, "Moved", contacts)


def called(to: str, outcome: Outcome, reason: str, seconds: float = 0.0) -> RecordCall:
    return RecordCall("out", "bell", to, outcome, reason, seconds)


# Together, one after another, and both


def test_those_together_ring_at_once() -> None:
    told = Story(Policy({"bell": Plan((Target(FLAT, 25), Target(OFFICE, 10, together=True)))}, {}))
    assert told.press()[:2] == [Dial(1, FLAT), Dial(2, OFFICE)]
    assert told.lamp is Lamp.CALLING
    told.tell(CallRang(2))
    assert (told.lamp, told.tone) == (Lamp.RINGING, Tone.RINGBACK)


def test_the_first_answer_wins_and_the_others_are_hung_up_at_once() -> None:
    told = both()
    told.tell(CallRang(1), CallRang(2))
    assert told.tell(CallAnswered(2)) == [
        HangUp(1),
        called(FLAT, Outcome.CANCELLED, f"answered by {OFFICE}"),
        RecordRing("bell", 2, Outcome.ANSWERED),
        ShowLamp(Lamp.TALKING),
        Play(Tone.SILENCE),
        Connect(2, Hearing.TALK),
    ]
    assert told.tell(CallAnswered(1)) == [], "in the same millisecond: it was hung up, and joins nothing"
    assert told.end(1, 200) == []
    assert isinstance(told.phase, Talking)
    assert told.phase.call == 2


def test_each_has_its_own_seconds_and_who_is_given_up_is_not_heard_of_again() -> None:
    told = both()
    told.tell(CallRang(2))
    assert told.wait(10) == [HangUp(2), ShowLamp(Lamp.CALLING), Play(Tone.HEARD)]
    assert told.tell(CallRang(2), CallAnswered(2), CallRang(2, early_media=True)) == []
    assert told.end(2, 487, "Request Terminated") == [called(OFFICE, Outcome.NO_ANSWER, "Request Terminated")]
    told.tell(CallAnswered(1))
    assert isinstance(told.phase, Talking)


def test_a_refusal_does_not_stop_the_others() -> None:
    told = both()
    told.tell(CallRang(1))
    assert told.end(2, 603, "Decline") == [called(OFFICE, Outcome.REJECTED, "Decline")]
    assert told.end(1, 480, "Away") == [
        called(FLAT, Outcome.NO_ANSWER, "Away"),
        RecordRing("bell", 2, Outcome.REJECTED),
        ShowLamp(Lamp.REJECTED),
        Play(Tone.REJECTED),
    ]


def test_the_next_ring_once_all_together_are_over() -> None:
    told = both_then_guard()
    told.end(1, 486, "Busy Here")
    assert dialled(told.wait(10)) == []
    assert dialled(told.end(2, 487, "Request Terminated")) == [GUARD]


def both_then_guard(**options: object) -> Story:
    return story(Target(FLAT, 25), Target(OFFICE, 10, together=True), Target(GUARD, 15), **options)  # type: ignore[arg-type]


def test_nobody_else_rings_before_a_hang_up_is_confirmed_or_counts_as_done() -> None:
    told = both_then_guard()
    told.end(1, 486, "Busy Here")
    told.wait(10)
    assert (told.lamp, told.tone) == (Lamp.CALLING, Tone.SILENCE)
    assert told.wait(4.9) == []
    actions = told.wait(0.2)
    assert dialled(actions) == [GUARD]
    assert called(OFFICE, Outcome.UNREACHABLE, "no word from the SIP side") in actions


def test_the_last_hang_up_is_waited_for_before_it_is_shown_how_it_went() -> None:
    told = both()
    told.wait(10)
    assert told.end(1, 486, "Busy Here")[0] == called(FLAT, Outcome.BUSY, "Busy Here")
    assert isinstance(told.phase, Ending)
    assert told.end(7) == []
    assert told.end(2, 487, "Request Terminated")[:2] == [
        called(OFFICE, Outcome.UNREACHABLE, "Request Terminated"),
        RecordRing("bell", 2, Outcome.BUSY),
    ]
    assert told.lamp is Lamp.BUSY


def test_a_list_is_rung_again_and_then_the_last_resort_once() -> None:
    told = both_then_guard(rounds=2, last_resort=Target(TRUNK, 40))
    rung = []
    for call in range(1, 8):
        rung += dialled(told.end(call, 480, "Away"))
    assert rung == [GUARD, FLAT, OFFICE, GUARD, TRUNK]
    assert isinstance(told.phase, Concluded)


def test_who_answers_ends_the_list() -> None:
    told = story(Target(FLAT, 25), rounds=5, last_resort=Target(TRUNK, 40))
    told.end(1, 486, "Busy Here")
    told.tell(CallAnswered(2))
    told.wait(5)
    assert told.end(2)[0] == called(FLAT, Outcome.ANSWERED, "OK", 5.0)
    assert dialled(told.wait(100)) == []
    assert isinstance(told.phase, Idle)


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (None, Outcome.FAILED, Outcome.FAILED),
        (Outcome.BUSY, Outcome.REJECTED, Outcome.BUSY),
        (Outcome.NO_ANSWER, Outcome.REJECTED, Outcome.REJECTED),
        (Outcome.NO_ANSWER, Outcome.UNREACHABLE, Outcome.NO_ANSWER),
        (Outcome.NOT_FOUND, Outcome.UNREACHABLE, Outcome.UNREACHABLE),
        (Outcome.NOT_FOUND, Outcome.FAILED, Outcome.NOT_FOUND),
    ],
)
def test_the_visitor_is_told_the_most_telling_end(one: Outcome | None, other: Outcome, told: Outcome) -> None:
    assert most_telling(one, other) is told


def test_a_press_hangs_up_all_of_them_and_each_has_its_record() -> None:
    told = both()
    told.wait(3)
    assert of(HangUp, told.press()) == [HangUp(1), HangUp(2)]
    assert told.end(1, 487, "Request Terminated") == [called(FLAT, Outcome.CANCELLED, "Request Terminated")]
    assert told.wait(5)[:2] == [
        called(OFFICE, Outcome.CANCELLED, "no word from the SIP side"),
        RecordRing("bell", 2, Outcome.CANCELLED),
    ]


def test_a_hang_up_leaves_alone_who_was_given_up_before() -> None:
    told = both()
    told.wait(12)
    assert of(HangUp, told.tell(HangUpRequested())) == [HangUp(1)]
    assert told.end(2, 487, "x") == [called(OFFICE, Outcome.UNREACHABLE, "x")]


def test_another_button_rings_once_all_are_over() -> None:
    told = both()
    told.wait(3)
    told.press("office")
    assert dialled(told.end(1, 487, "x")) == []
    assert dialled(told.end(2, 487, "x")) == [OFFICE]


def test_stopping_hangs_up_all_of_them() -> None:
    told = both()
    assert told.tell(Stopped())[:5] == [
        HangUp(1),
        HangUp(2),
        called(FLAT, Outcome.CANCELLED, "stopped"),
        called(OFFICE, Outcome.CANCELLED, "stopped"),
        RecordRing("bell", 2, Outcome.CANCELLED),
    ]


def test_the_one_who_rings_stands_for_all() -> None:
    told = both()
    assert isinstance(told.phase, Calling)
    assert (told.phase.call, told.phase.peer) == (1, FLAT)
    told.tell(CallRang(2))
    assert (told.phase.call, told.phase.peer) == (2, OFFICE)


# Early media


def test_of_several_who_send_early_media_one_is_heard() -> None:
    told = both()
    assert Connect(2, Hearing.SPEAKER) in told.tell(CallRang(2, early_media=True))
    assert told.tone is Tone.SILENCE
    assert told.tell(CallRang(1, early_media=True), CallRang(2, early_media=True)) == []
    assert told.end(2, 486, "Busy Here")[-1] == Connect(1, Hearing.SPEAKER), "the next, once it is gone"
    told.end(1, 486, "Busy Here")
    assert told.lamp is Lamp.BUSY


def test_our_own_tone_comes_back_when_early_media_ends() -> None:
    told = both()
    told.tell(CallRang(1), CallRang(2, early_media=True))
    assert Play(Tone.RINGBACK) in told.end(2, 486, "Busy Here")


# A key confirms


def test_an_answer_counts_with_a_key_only() -> None:
    told = both(confirm=True)
    told.tell(CallRang(1), CallRang(2))
    assert told.tell(CallAnswered(2)) == [Connect(2, Hearing.PROMPT)]
    assert (told.lamp, told.tone) == (Lamp.RINGING, Tone.RINGBACK)
    assert told.tell(CallAnswered(2), DigitReceived(1, "5")) == [], "a key of who has not answered"
    assert told.tell(DigitReceived(2, "5"))[:4] == [
        HangUp(1),
        called(FLAT, Outcome.CANCELLED, f"answered by {OFFICE}"),
        RecordRing("bell", 2, Outcome.ANSWERED),
        ShowLamp(Lamp.TALKING),
    ]
    assert isinstance(told.phase, Talking)
    assert told.phase.digits == "", "it is no part of a code"


def test_who_answers_without_ringing_makes_it_ring_for_the_visitor() -> None:
    told = story(Target(FLAT, 25), confirm=True)
    assert told.tell(CallAnswered(1)) == [
        ShowLamp(Lamp.RINGING),
        Play(Tone.RINGBACK),
        Connect(1, Hearing.PROMPT),
    ]


def test_a_voicemail_counts_as_unanswered() -> None:
    told = story(Target(FLAT, 5), Target(GUARD, 15), confirm=True)
    told.wait(4)
    told.tell(CallAnswered(1))
    assert told.wait(9.9) == [], "at least ten seconds to find a key"
    assert of(HangUp, told.wait(0.2)) == [HangUp(1)]
    assert told.tell(DigitReceived(1, "5")) == []
    actions = told.end(1, 200)
    assert dialled(actions) == [GUARD]
    assert called(FLAT, Outcome.NO_ANSWER, "answered without a key") in actions


def test_an_answer_has_the_seconds_of_its_target() -> None:
    told = story(Target(FLAT, 25), confirm=True)
    told.tell(CallAnswered(1))
    assert told.wait(24.9) == []
    assert of(HangUp, told.wait(0.2)) == [HangUp(1)]


def test_who_hangs_up_without_a_key_has_not_answered() -> None:
    told = story(Target(FLAT, 25), confirm=True)
    told.tell(CallAnswered(1))
    assert told.end(1, 200)[0] == called(FLAT, Outcome.NO_ANSWER, "answered without a key")
    assert told.lamp is Lamp.NO_ANSWER


def test_a_greeting_is_not_heard_at_the_door() -> None:
    told = story(Target(FLAT, 25), confirm=True)
    assert told.tell(CallRang(1, early_media=True))[-1] == Connect(1, Hearing.SPEAKER)
    assert told.tell(CallAnswered(1)) == [Play(Tone.RINGBACK), Connect(1, Hearing.PROMPT)]


# Redirection


def test_a_redirection_is_followed_within_the_same_time() -> None:
    told = story(Target(FLAT, 25))
    told.wait(20)
    assert told.tell(moved(MOBILE, DESK)) == [
        Dial(2, MOBILE),
        called(FLAT, Outcome.REDIRECTED, f"Moved; {MOBILE} then {DESK}"),
    ]
    assert told.tell(CallEnded(2, 486, "Busy Here")) == [
        Dial(3, DESK),
        called(MOBILE, Outcome.BUSY, "Busy Here"),
    ]
    assert of(HangUp, told.wait(5)) == [HangUp(3)]
    assert told.end(3, 487, "x")[:2] == [
        called(DESK, Outcome.UNREACHABLE, "x"),
        RecordRing("bell", 3, Outcome.BUSY),
    ]


def test_a_redirection_of_one_leaves_the_others_alone() -> None:
    told = both()
    assert dialled(told.tell(moved(MOBILE, call=2))) == [MOBILE]
    assert of(HangUp, told.tell(CallAnswered(3))) == [HangUp(1)]


def test_where_a_redirection_leads_to_a_stranger_the_reason_is_kept() -> None:
    told = story(Target(FLAT, 25))
    assert told.tell(moved("sip:0900@evil.example"))[0] == called(
        FLAT, Outcome.FAILED, "Moved; sip:0900@evil.example is not in [redirect] permit"
    )
    assert told.lamp is Lamp.FAILED


def test_an_address_that_was_tried_is_not_tried_again() -> None:
    told = both()
    same = FLAT.replace("site.example", "SITE.example") + ";transport=tcp"
    assert told.tell(moved(same, call=2)) == [
        called(OFFICE, Outcome.FAILED, f"Moved; {same} was tried before")
    ]
    assert dialled(told.tell(moved(MOBILE, MOBILE))) == [MOBILE]
    assert dialled(told.end(3, 486, "x")) == []


def test_the_next_round_may_follow_the_same_redirection() -> None:
    told = story(Target(FLAT, 25), rounds=2)
    assert dialled(told.tell(moved(MOBILE))) == [MOBILE]
    assert dialled(told.end(2, 486, "x")) == [FLAT]
    assert dialled(told.tell(moved(MOBILE, call=3))) == [MOBILE]


def test_a_chain_of_redirections_ends() -> None:
    told = story(Target(FLAT, 25))
    for hop in range(MOST_HOPS):
        assert dialled(told.tell(moved(f"sip:{hop}@site.example", call=hop + 1))) == [
            f"sip:{hop}@site.example"
        ]
    actions = told.tell(moved("sip:last@site.example", call=MOST_HOPS + 1))
    assert actions[0] == called(
        f"sip:{MOST_HOPS - 1}@site.example",
        Outcome.FAILED,
        f"Moved; sip:last@site.example would be more than {MOST_HOPS} redirections",
    )


def test_use_proxy_calls_the_same_address_through_it() -> None:
    told = story(Target(FLAT, 25))
    proxy = "sip:site.example:5070"
    assert told.tell(moved(proxy, status=305))[0] == Dial(2, FLAT, proxy)
    assert told.tell(moved(proxy, call=2, status=305))[0] == called(
        FLAT, Outcome.FAILED, f"Moved; {proxy} was tried before"
    )


def test_a_redirection_without_an_address_is_a_failure() -> None:
    told = story(Target(FLAT, 25))
    assert told.tell(moved(status=380))[0] == called(FLAT, Outcome.FAILED, "Moved")


def test_who_is_given_up_is_redirected_nowhere() -> None:
    told = both()
    told.wait(10)
    assert dialled(told.tell(moved(MOBILE, call=2))) == []


def test_an_operators_call_is_redirected_too() -> None:
    told = Story(Policy({}, {}, redirects=frozenset({MOBILE})))
    told.tell(CallRequested(FLAT))
    assert dialled(told.tell(moved(MOBILE))) == [MOBILE]
    assert RecordRing(None, 2, Outcome.ANSWERED) in told.tell(CallAnswered(2))


# The time of day


def test_a_press_rings_whom_the_time_of_day_says() -> None:
    told = Story(
        Policy(POLICY.buttons, {}, hours={"bell": (Plan((Target(GUARD, 9),)), Plan((Target(OFFICE, 9),)))})
    )
    assert told.tell(HoursChanged({"bell": 1})) == []
    assert dialled(told.press("office")) == [OFFICE]
    told.end(1, 486, "x")
    told.end(2, 486, "x")
    assert dialled(told.press()) == [OFFICE]
    told.tell(HoursChanged({}))
    assert told.end(3, 486, "x"), "who rings goes on ringing"
    told.wait(3)
    assert dialled(told.press()) == [FLAT]
