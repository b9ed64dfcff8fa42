"""Which sound card is meant, and how loud it is."""

from array import array
from math import pi, sin
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.codec import SILENCE_DBFS, Card, CardMissing, Level, cards, find, level, measure

TWO_CARDS = """\
 0 [Headphones     ]: bcm2835_headpho - bcm2835 Headphones
                      bcm2835 Headphones
 3 [seeed2micvoicec]: seeed-2mic-voic - seeed-2mic-voicecard
                      seeed-2mic-voicecard
"""
RATE = 16000


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "cards").write_text(TWO_CARDS)
    return tmp_path


@pytest.fixture
def no_card(tmp_path: Path) -> Path:
    (tmp_path / "cards").write_text("--- no soundcards ---\n")
    return tmp_path


@pytest.fixture
def configs(tmp_path: Path) -> list[str]:
    (tmp_path / "asound.conf").write_text(
        "pcm.!default { type asym }\n  pcm.door { type dsnoop }\n#pcm.old {}\n"
    )
    (tmp_path / "dead.conf").symlink_to(tmp_path / "nowhere")
    return [f"{tmp_path}/*.conf"]


def test_the_cards_that_are_there(proc: Path) -> None:
    assert cards(proc) == (
        Card(0, "Headphones", "bcm2835_headpho - bcm2835 Headphones"),
        Card(3, "seeed2micvoicec", "seeed-2mic-voic - seeed-2mic-voicecard"),
    )


def test_no_cards(no_card: Path, tmp_path: Path) -> None:
    assert cards(no_card) == ()
    assert cards(tmp_path / "nowhere") == ()


@pytest.mark.parametrize(
    ("device", "pcm"),
    [
        ("seeed2micvoicec", "plughw:CARD=seeed2micvoicec"),
        ("plughw:CARD=seeed2micvoicec", "plughw:CARD=seeed2micvoicec"),
        ("hw:CARD=seeed2micvoicec,DEV=0", "hw:CARD=seeed2micvoicec,DEV=0"),
        ("plughw:seeed2micvoicec,0", "plughw:seeed2micvoicec,0"),
        ("default", "default"),
        ("null", "null"),
        ("door", "door"),
        ("plug:door", "plug:door"),
    ],
)
def test_a_device_is_found_by_its_id_or_its_name(
    proc: Path, configs: list[str], device: str, pcm: str
) -> None:
    assert find(device, proc, configs) == pcm


@pytest.mark.parametrize("device", ["3", "hw:3,0", "plughw:3", "hw:CARD=3"])
def test_a_card_by_its_number_is_refused(proc: Path, configs: list[str], device: str) -> None:
    with pytest.raises(ValueError, match=r"card numbers move at a reboot.*seeed2micvoicec"):
        find(device, proc, configs)


@pytest.mark.parametrize("device", ["Device", "plughw:CARD=Device", "old", ""])
def test_a_missing_card_lists_those_that_are_there(proc: Path, configs: list[str], device: str) -> None:
    with pytest.raises(CardMissing, match=r"is not there; cards: Headphones \(.*\), seeed2micvoicec"):
        find(device, proc, configs)


def test_a_missing_card_among_none(no_card: Path, configs: list[str]) -> None:
    with pytest.raises(OSError, match="is not there; cards: none"):
        find("seeed2micvoicec", no_card, configs)


def test_a_missing_card_is_not_measured(no_card: Path) -> None:
    with pytest.raises(CardMissing):
        measure("plughw:CARD=seeed2micvoicec", 0.1, no_card)


def sine(amplitude: int, seconds: float = 1.0) -> "array[int]":
    return array("h", (round(amplitude * sin(2 * pi * 440 * n / RATE)) for n in range(int(RATE * seconds))))


def test_a_full_scale_sine_is_three_decibels_below_full_scale() -> None:
    assert level(sine(32767), RATE) == Level(-3.0, 0.0, True, RATE)


def test_a_tenth_of_the_amplitude_is_twenty_decibels_less() -> None:
    assert level(sine(3277), RATE) == Level(-23.0, -20.0, False, RATE)


def test_a_full_scale_square_wave_is_zero() -> None:
    assert level(array("h", [-32768, 32767] * 100), RATE).rms_dbfs == 0.0


@pytest.mark.parametrize("samples", [[], [0] * 100])
def test_silence_has_a_number(samples: list[int]) -> None:
    assert level(array("h", samples), RATE) == Level(SILENCE_DBFS, SILENCE_DBFS, False, RATE)


@pytest.mark.parametrize(
    ("sample", "clipped"), [(32767, True), (-32768, True), (32766, False), (-32766, False)]
)
def test_clipping_is_a_sample_at_full_scale(sample: int, clipped: bool) -> None:
    assert level(array("h", [0, sample, 0]), RATE).clipped is clipped


@given(st.lists(st.integers(-32768, 32767)))
def test_no_sound_is_above_full_scale_or_louder_than_its_peak(samples: list[int]) -> None:
    heard = level(array("h", samples), RATE)
    assert SILENCE_DBFS <= heard.rms_dbfs <= heard.peak_dbfs <= 0.0
