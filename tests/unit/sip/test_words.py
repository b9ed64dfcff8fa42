"""Small tables: refusals in words, one digit for one key press, and the tones and lamps of the core."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.lamp import PATTERNS
from intercom.core.guide import Lamp, Tone
from intercom.core.ringing import Outcome
from intercom.sip.config import AccountConfig
from intercom.sip.digits import DigitFilter
from intercom.sip.explain import explain_refusal
from intercom.sip.tones import CADENCES

# Refusals


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not accept the user name or password of 'door' (401 why)"),
        (407, "does not accept the user name or password of 'door' (407 why)"),
        (403, "refuses 'door': wrong password, or this user may not register from here (403 why)"),
        (404, "knows no user 'door' (404 why)"),
        (408, "is silent: wrong address or port, a firewall, or (a FRITZ!Box) a wrong user name (408 why)"),
        (423, "wants a longer registration than the settings ask for (expires_seconds) (423 why)"),
        (480, "says that 'door' is unavailable (480 why)"),
        (502, "cannot be reached (502 why)"),
        (503, "is not available or refuses the connection (503 why)"),
        (
            302,
            "sends 'door' elsewhere: set account.registrar to where that is (302 why)",
        ),
        (599, "refuses the registration (599 why)"),
        (200, "took the registration, but granted no time or did not confirm the address"),
    ],
)
def test_a_refusal_in_words(status: int, words: str) -> None:
    assert explain_refusal(status, "why", "sip:door@site.example", "pbx:5060") == f"pbx:5060 {words}"


def test_a_password_is_not_shown() -> None:
    account = AccountConfig("door", "sip:door@x", "sip:x", "x", None, "udp", "door", "hunter2", 300)
    assert "hunter2" not in repr(account)


# Digits


def presses(*timestamps: int | None) -> int:
    digits = DigitFilter()
    return sum(digits.is_new(timestamp, 0.0) for timestamp in timestamps)


def test_the_packets_of_one_press_are_one_digit() -> None:
    assert presses(*[160] * 12) == 1


def test_the_same_digit_twice_is_two() -> None:
    assert presses(160, 160, 160, 4000, 4000) == 2


def test_each_info_is_a_press() -> None:
    assert presses(None, None, None) == 3


def test_a_telephone_that_sends_each_press_in_both_ways_is_heard_once() -> None:
    assert presses(160, None, 160, 4000, None) == 2
    assert presses(None, 160, 160, None, 4000) == 2


def test_a_press_before_the_answer_is_none_also_if_it_lasts_longer() -> None:
    digits = DigitFilter()
    digits.ignore(None)
    digits.ignore(160)
    assert not digits.is_new(160, 1.0)
    assert digits.is_new(4000, 1.1)


def test_after_a_silence_the_other_way_counts() -> None:
    digits = DigitFilter()
    assert digits.is_new(160, 0.0)
    assert not digits.is_new(None, 4.9)
    assert digits.is_new(None, 5.0)
    assert not digits.is_new(8000, 5.1)
    assert not digits.is_new(8000, 20.0), "it was the same press"


def test_timestamp_zero_is_a_press() -> None:
    assert presses(0, 0) == 1


def test_packets_that_overtake_each_other_are_no_new_press() -> None:
    assert presses(160, 160, 1760, 160, 1760, 3360, 1760, 160) == 3


def test_the_clock_of_the_far_end_may_wrap() -> None:
    assert presses(2**32 - 80, 2**32 - 80, 80, 80) == 2


@given(st.lists(st.integers(0, 2**32 - 1), unique=True, max_size=20), st.data())
def test_any_number_of_repeats_in_order_is_one_press_each(timestamps: list[int], data: st.DataObject) -> None:
    row = [stamp for stamp in timestamps for _ in range(data.draw(st.integers(1, 7)))]
    assert presses(*row) == len(timestamps)


# Tones and lamps


def test_every_tone_but_silence_is_defined() -> None:
    assert set(CADENCES) == set(Tone) - {Tone.SILENCE}


def test_no_two_tones_sound_the_same() -> None:
    assert len(set(CADENCES.values())) == len(CADENCES)


@pytest.mark.parametrize("tone", CADENCES)
def test_a_tone_can_be_heard_and_ends(tone: Tone) -> None:
    cadence = CADENCES[tone]
    assert 0.2 <= cadence.seconds <= 6
    assert all(200 <= beep.hertz <= 3400 and beep.on >= 50 and beep.off > 0 for beep in cadence.beeps)


def test_only_what_lasts_is_repeated() -> None:
    once = {tone for tone, cadence in CADENCES.items() if not cadence.repeats}
    assert once == {Tone.HEARD, Tone.DOOR_OPEN, Tone.END, Tone.NO_ANSWER, Tone.FAILED, Tone.WARNING}


def test_the_panel_knows_every_lamp() -> None:
    assert {lamp.value for lamp in Lamp} == set(PATTERNS)


def test_no_two_lamps_look_the_same() -> None:
    assert len(set(PATTERNS.values())) == len(PATTERNS)


def test_every_bad_end_has_a_lamp_and_a_tone() -> None:
    told = {outcome.value for outcome in Outcome} - {
        Outcome.ANSWERED,
        Outcome.CANCELLED,
        Outcome.REDIRECTED,
    }
    assert told <= {lamp.value for lamp in Lamp}
    assert told <= {tone.value for tone in Tone}
