"""From a bouncing contact to one ring, and what further presses mean."""

import pytest

from intercom.core.actions import Action, Dial, HangUp, Play, RecordCall, RecordPress, RecordRing, ShowLamp
from intercom.core.events import ButtonDown, ButtonUp, CallAnswered, CallRang
from intercom.core.guide import Lamp, Tone
from intercom.core.policy import Policy
from intercom.core.ringing import Outcome
from intercom.core.state import Calling, Concluded, Ending, Idle, State, Talking, next_deadline
from tests.fakes import FLAT, GUARD, OFFICE, POLICY, Story


def dials(actions: list[Action]) -> list[str]:
    return [action.to for action in actions if isinstance(action, Dial)]


def called(
    outcome: Outcome, reason: str, to: str = FLAT, button: str | None = "bell", talked: float = 0.0
) -> RecordCall:
    return RecordCall("out", button, to, outcome, reason, talked)


# The contact


def test_a_press_rings_once_it_has_settled() -> None:
    story = Story()
    assert story.tell(ButtonDown("bell")) == []
    assert story.wait(0.0299) == []
    assert story.wait(0.0002) == [Dial(1, FLAT), ShowLamp(Lamp.CALLING), Play(Tone.HEARD)]


def test_a_short_press_that_a_busy_machine_takes_late_rings() -> None:
    story = Story()
    pressed = story.now
    story.wait(2)
    assert story.tell(ButtonDown("bell", pressed)) == []
    assert dials(story.tell(ButtonUp("bell", pressed + 0.05))) == [FLAT]
    assert dials(story.wait(1)) == []
    assert story.state.contacts == {}


def test_a_spark_that_a_busy_machine_takes_late_rings_nobody() -> None:
    story = Story()
    spark = story.now
    story.wait(2)
    assert story.tell(ButtonDown("bell", spark), ButtonUp("bell", spark + 0.005)) == []
    assert story.wait(1) == []
    assert story.state.contacts == {}


def test_a_held_button_is_one_press_and_nothing_waits_for_it() -> None:
    story = Story()
    story.tell(ButtonDown("bell"))
    assert dials(story.wait(1)) == [FLAT]
    story.end(1, 486, "Busy Here")
    assert dials(story.wait(24 * 3600)) == []
    assert isinstance(story.phase, Idle)
    assert next_deadline(story.state, POLICY.settle_seconds) is None
    story.tell(ButtonUp("bell"))
    story.wait(1)
    assert story.state.contacts == {}


def test_a_stuck_button_does_not_silence_the_other() -> None:
    story = Story()
    story.tell(ButtonDown("office"))
    story.wait(3600)
    assert dials(story.contact("bell", 0.2)) == [FLAT]


@pytest.mark.parametrize("milliseconds", range(1, 51))
def test_a_bouncing_press_is_one_ring(milliseconds: int) -> None:
    story = Story()
    bounce = milliseconds / 1000 / 8
    assert dials(story.contact("bell", *[bounce] * 8, 0.2, *[bounce] * 8)) == [FLAT]
    assert dials(story.wait(1)) == []
    assert story.state.contacts == {}


def test_a_hundred_presses_a_second_for_ten_seconds_are_one_call() -> None:
    story = Story()
    rung = []
    for _ in range(1000):
        rung += dials(story.contact("bell", 0.005) + story.wait(0.005))
    assert rung == [FLAT]
    assert isinstance(story.phase, Calling)


def test_short_presses_with_time_between_them_still_do_not_ring_by_adding_up() -> None:
    story = Story()
    for _ in range(100):
        assert story.contact("bell", 0.005) + story.wait(0.031) == []
    assert story.state == State()


def test_a_noise_spike_does_nothing_and_is_forgotten() -> None:
    story = Story()
    assert story.contact("bell", 0.02) == []
    assert story.wait(0.03) == []
    assert story.state == State()


def test_without_settle_time_a_contact_counts_at_once() -> None:
    story = Story(Policy(POLICY.buttons, POLICY.doors, settle_seconds=0))
    assert dials(story.tell(ButtonDown("bell"))) == [FLAT]
    assert story.tell(ButtonUp("bell")) == []
    assert story.state.contacts == {}


def test_edges_that_repeat_what_is_known_change_nothing() -> None:
    story = Story()
    story.tell(ButtonDown("bell"))
    story.wait(0.01)
    before = story.state
    story.tell(ButtonDown("bell"))
    assert story.state == before
    story.tell(ButtonUp("bell"))
    before = story.state
    story.tell(ButtonUp("bell"), ButtonUp("office"))
    assert story.state == before


def test_a_button_without_a_rule_does_nothing() -> None:
    story = Story()
    assert story.contact("cellar", 0.5) + story.wait(1) == []
    assert story.state == State()


def test_two_buttons_at_once_are_one_call() -> None:
    story = Story()
    story.tell(ButtonDown("bell"), ButtonDown("office"))
    assert dials(story.wait(1)) == [FLAT]


# Further presses


def test_impatience_is_absorbed() -> None:
    story = Story()
    story.press()
    for _ in range(10):
        story.wait(1)
        assert story.press() == []
    assert isinstance(story.phase, Calling)
    assert (story.phase.call, story.phase.peer, story.phase.until) == (1, FLAT, 1025.0)


def test_a_press_while_it_rings_hangs_up() -> None:
    story = Story()
    story.press()
    story.wait(3)
    story.tell(CallRang(1))
    assert story.press() == [HangUp(1), ShowLamp(Lamp.READY), Play(Tone.SILENCE)]
    assert story.end(1, 487, "Request Terminated") == [
        called(Outcome.CANCELLED, "Request Terminated"),
        Play(Tone.END),
    ]


def test_a_press_while_they_talk_hangs_up() -> None:
    story = Story()
    story.press()
    story.tell(CallRang(1), CallAnswered(1))
    story.wait(40)
    assert story.press("office") == [RecordPress("office", "somebody is talking")]
    story.wait(3)
    assert story.press() == [HangUp(1), ShowLamp(Lamp.READY)]
    assert story.end(1) == [called(Outcome.ANSWERED, "OK", talked=43.0), Play(Tone.END)]


def test_a_press_just_after_the_answer_is_impatience() -> None:
    story = Story()
    story.press()
    story.wait(10)
    story.tell(CallAnswered(1))
    story.wait(0.2)
    assert story.press() == [RecordPress("bell", "somebody is talking")]


def test_a_press_during_the_hang_up_rings_again() -> None:
    story = Story()
    story.press()
    story.wait(3)
    story.press()
    story.wait(3)
    assert story.press() == [ShowLamp(Lamp.CALLING)]
    assert story.end(1, 487, "Request Terminated") == [
        Dial(2, FLAT),
        called(Outcome.CANCELLED, "Request Terminated"),
        Play(Tone.HEARD),
    ]


def test_impatience_during_the_hang_up_is_absorbed() -> None:
    story = Story()
    story.press()
    story.wait(3)
    story.press()
    story.wait(1)
    assert story.press() == []
    assert dials(story.end(1, 487, "Request Terminated")) == []


def test_a_press_while_the_outcome_is_shown_rings_again() -> None:
    story = Story()
    story.press()
    story.wait(2)
    story.end(1, 486, "Busy Here")
    assert story.press() == [Dial(2, FLAT), ShowLamp(Lamp.CALLING), Play(Tone.HEARD)]


def test_impatience_while_the_outcome_is_shown_is_absorbed() -> None:
    story = Story()
    story.press()
    story.end(1, 486, "Busy Here")
    assert story.press() == []
    assert isinstance(story.phase, Concluded)


def test_another_button_replaces_the_call() -> None:
    story = Story()
    story.press()
    story.wait(3)
    assert story.press("office") == [HangUp(1), Play(Tone.SILENCE)]
    assert story.lamp is Lamp.CALLING
    assert story.end(1, 487, "Request Terminated") == [
        Dial(2, OFFICE),
        called(Outcome.CANCELLED, "Request Terminated"),
        Play(Tone.HEARD),
    ]
    assert isinstance(story.phase, Calling)
    assert story.phase.button == "office"


# Serial targets


def test_the_next_address_is_rung_when_nobody_answers() -> None:
    story = Story()
    story.press("office")
    story.tell(CallRang(1))
    assert story.wait(19.9) == []
    assert story.wait(0.2) == [HangUp(1), ShowLamp(Lamp.CALLING), Play(Tone.SILENCE)]
    assert story.end(1, 487, "Request Terminated") == [
        called(Outcome.NO_ANSWER, "Request Terminated", OFFICE, "office"),
        Dial(2, GUARD),
        Play(Tone.HEARD),
    ]
    assert story.wait(15) == [HangUp(2), ShowLamp(Lamp.READY), Play(Tone.SILENCE)]
    assert story.end(2, 487, "Request Terminated") == [
        called(Outcome.UNREACHABLE, "Request Terminated", GUARD, "office"),
        RecordRing("office", 2, Outcome.NO_ANSWER),
        ShowLamp(Lamp.NO_ANSWER),
        Play(Tone.NO_ANSWER),
    ]


def test_the_next_address_is_rung_at_once_after_a_refusal() -> None:
    story = Story()
    story.press("office")
    assert story.end(1, 486, "Busy Here") == [
        called(Outcome.BUSY, "Busy Here", OFFICE, "office"),
        Dial(2, GUARD),
    ]
    story.tell(CallAnswered(2))
    assert isinstance(story.phase, Talking)
    assert story.phase.peer == GUARD
    assert story.phase.button == "office"


def test_a_hang_up_ends_the_whole_row() -> None:
    story = Story()
    story.press("office")
    story.wait(3)
    story.press("office")
    assert isinstance(story.phase, Ending)
    assert dials(story.end(1, 487, "Request Terminated")) == []


def test_another_button_is_never_a_repetition() -> None:
    story = Story()
    story.press()
    story.wait(0.5)
    assert HangUp(1) in story.press("office")
