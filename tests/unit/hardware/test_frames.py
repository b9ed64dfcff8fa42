"""Keys and cards out of bytes: the frames of the data sheets, and everything that is none."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.frames import (
    GAP_SECONDS,
    HELD_SECONDS,
    MOST_HELD,
    MOST_KEYS,
    NOISE_BYTES,
    ONLY_NOISE,
    QUIET_SECONDS,
    Card,
    Decoder,
    Garbled,
    Held,
    Key,
    Keypad,
    Reading,
    Strength,
    id12la,
    rdm6300,
    wiegand,
)
from hardware.pn532 import frame
from hardware.reader import KINDS
from hardware.simulated_readers import id12la_frame, rdm6300_frame, wiegand_frame
from tests.bench.readers import ALPHABETS, Asking, Misread, misread

# The example of the RDM630's data sheet; the one that sellers of the EM-18 print; and a tag with 0001217496
# printed on it, which an RDM6300 reads as 01001293D8 with the checksum 58, or as these 26 bits.
DATA_SHEET = b"\x0262E3086CED08\x03"
EM18 = b"\x024500C5D1E9B8\x03"
TAG = b"\x0201001293D858\x03"
TAG_BITS = "0" + f"{0x1293D8:024b}" + "1"
LONG_BITS = "1" + f"{0x12345678:032b}" + "1"

MAKERS: dict[str, Callable[[], Decoder]] = {
    "rdm6300": rdm6300,
    "id12la": id12la,
    "wiegand": wiegand,
    "keypad": Keypad,
}
SAMPLES = {
    "rdm6300": DATA_SHEET,
    "id12la": id12la_frame("62E3086CED"),
    "wiegand": wiegand_frame(TAG_BITS),
    "keypad": b"4711#",
}


def em4100(number: str) -> Card:
    return Card("em4100", number)


def keys(text: str) -> list[Reading]:
    return [Key(key) for key in text]


@pytest.mark.parametrize(
    ("decoder", "frame", "card"),
    [
        (rdm6300(), DATA_SHEET, em4100("62E3086CED")),
        (rdm6300(), EM18, em4100("4500C5D1E9")),
        (rdm6300(), TAG, em4100("01001293D8")),
        (id12la(), b"\x0262E3086CED08\r\n\x03", em4100("62E3086CED")),
        (wiegand(), b"\x02002527B1B3\x03", Card("wiegand26", "18-37848")),
        (wiegand(), b"\x02022468ACF113\x03", Card("wiegand34", "4660-22136")),
    ],
)
def test_a_frame_is_a_card(decoder: Decoder, frame: bytes, card: Card) -> None:
    assert decoder.receive(frame, 0.0) == [card]
    assert card.strength is Strength.NUMBER


def test_the_simulator_makes_these_frames_too() -> None:
    assert rdm6300_frame("62E3086CED") == DATA_SHEET
    assert wiegand_frame(TAG_BITS) == b"\x02002527B1B3\x03"
    assert wiegand_frame(LONG_BITS) == b"\x02022468ACF113\x03"


def test_one_tag_is_the_same_card_at_both_kinds_of_reader() -> None:
    assert rdm6300().receive(TAG, 0.0) == id12la().receive(id12la_frame("01001293D8"), 0.0)


@pytest.mark.parametrize(
    "frame",
    [
        b"\x0262E3086CED09\x03",  # checksum
        b"\x0262E3086CEF08\x03",  # a digit
        b"\x0262e3086ced08\x03",  # small letters
        b"\x0262E3086CED08\x02",  # no end
        b"\x0362E3086CED08\x03",  # no start
        b"\x0262E3086CE08\x03",  # short
        b"\x0262E3086CEDD08\x03",  # long
    ],
)
def test_a_wrong_frame_is_nothing_and_the_next_one_counts(frame: bytes) -> None:
    assert rdm6300().receive(frame + EM18, 0.0) == [em4100("4500C5D1E9")]


@pytest.mark.parametrize("lost", range(14))
def test_a_frame_without_one_of_its_bytes_is_nothing(lost: int) -> None:
    decoder = rdm6300()
    assert decoder.receive(DATA_SHEET[:lost] + DATA_SHEET[lost + 1 :], 0.0) == []
    assert decoder.receive(EM18, 0.0) == [em4100("4500C5D1E9")]


@pytest.mark.parametrize("bit", range(26))
def test_a_turned_wiegand_bit_is_found_by_parity(bit: int) -> None:
    turned = "".join(str(int(value) ^ (at == bit)) for at, value in enumerate(TAG_BITS))
    assert wiegand().receive(wiegand_frame(turned), 0.0) == []


def test_swapped_wiegand_wires_are_found_by_parity() -> None:
    assert wiegand().receive(wiegand_frame(TAG_BITS.translate({48: 49, 49: 48})), 0.0) == []


def test_more_bits_than_wiegand_has_are_nothing() -> None:
    assert wiegand().receive(b"\x020C2527B1BF\x03", 0.0) == [], "two bits more, so that the parity is right"


def test_half_a_frame_is_not_waited_for_for_ever() -> None:
    decoder = rdm6300()
    assert decoder.receive(DATA_SHEET[:7], 0.0) == []
    assert decoder.receive(DATA_SHEET[7:], GAP_SECONDS * 1.1) == []


def test_a_frame_that_never_ends_costs_no_memory() -> None:
    decoder = rdm6300()
    for _ in range(64):
        assert decoder.receive(b"\x02" + b"7" * 1023, 0.0) == []
        assert len(decoder._kept) < len(DATA_SHEET)  # type: ignore[attr-defined]
    assert decoder.receive(DATA_SHEET, 0.0) == [em4100("62E3086CED")]


@pytest.mark.parametrize("kind", MAKERS)
def test_only_noise_is_a_fault_until_something_is_understood(kind: str) -> None:
    decoder = MAKERS[kind]()
    decoder.receive(b"\xff" * (NOISE_BYTES - 1), 0.0)
    assert decoder.fault is None
    decoder.receive(b"\xff", 0.0)
    assert decoder.fault == ONLY_NOISE
    decoder.receive(SAMPLES[kind], 1.0)
    assert decoder.fault is None


@pytest.mark.parametrize("kind", MAKERS)
def test_nobody_talks_to_a_reader_that_does_not_listen(kind: str) -> None:
    decoder = MAKERS[kind]()
    assert decoder.send(0.0) == b""
    assert decoder.deadline is None


# Keypads


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (b"0123456789*#", "0123456789*#"),
        (b"4711\r", "4711#"),
        (b"4711\r\n", "4711#"),
        (b"4711#\r\n", "4711#"),
        (b"4711#\r\r", "4711##"),
        (b"\r\n", "#"),
    ],
)
def test_keys(typed: bytes, read: str) -> None:
    assert Keypad().receive(typed, 0.0) == keys(read)


def test_one_wrong_byte_spoils_what_was_typed_before_and_right_after() -> None:
    keypad = Keypad()
    assert keypad.receive(b"47", 0.0) == keys("47")
    assert keypad.receive(b"1\xf01#", 0.2) == [Key("1"), Garbled()]
    assert keypad.receive(b"4711#", 0.2 + QUIET_SECONDS / 2) == []
    assert keypad.receive(b"0815#", 0.2 + QUIET_SECONDS * 2) == keys("0815#")


def test_more_keys_at_once_than_anybody_types_are_noise() -> None:
    keypad = Keypad()
    assert keypad.receive(b"1" * 1000, 0.0) == [*keys("1" * MOST_KEYS), Garbled()]
    assert keypad.receive(b"1" * 1000, 0.0) == []
    assert keypad.receive(b"1", QUIET_SECONDS) == keys("1")


def test_a_call_with_nothing_changes_nothing() -> None:
    keypad = Keypad()
    keypad.receive(b"\xf0", 0.0)
    assert keypad.receive(b"", 0.09) == []
    assert keypad.receive(b"1", 0.11) == keys("1")


# Any pieces, any garbage


def in_pieces(decoder: Decoder, text: bytes, sizes: list[int]) -> list[Reading]:
    readings = []
    while text:
        size = sizes.pop() if sizes else len(text)
        readings += decoder.receive(text[:size], 0.0)
        text = text[size:]
    return readings


@pytest.mark.parametrize("kind", MAKERS)
@given(
    parts=st.lists(st.binary(max_size=40) | st.sampled_from([*SAMPLES.values(), EM18, DATA_SHEET[:9]])),
    sizes=st.lists(st.integers(1, 20)),
)
def test_the_size_of_the_pieces_does_not_matter(kind: str, parts: list[bytes], sizes: list[int]) -> None:
    text = b"".join(parts)
    assert in_pieces(MAKERS[kind](), text, sizes) == MAKERS[kind]().receive(text, 0.0)


@pytest.mark.parametrize("kind", MAKERS)
@given(pieces=st.lists(st.tuples(st.binary(max_size=200), st.floats(0, 2))))
def test_it_finds_the_card_after_any_garbage_and_a_short_silence(
    kind: str, pieces: list[tuple[bytes, float]]
) -> None:
    decoder, now = MAKERS[kind](), 0.0
    for data, pause in pieces:
        now += pause
        decoder.receive(data, now)
    expected = MAKERS[kind]().receive(SAMPLES[kind], 0.0)
    assert decoder.receive(SAMPLES[kind], now + QUIET_SECONDS * 1.1)[-len(expected) :] == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_million_random_bytes_are_no_card_and_open_nothing(kind: str) -> None:
    """`make bench-readers` takes ten million."""
    result = misread(kind, 1_000_000)
    assert (result.cards, result.grants) == (0, 0)


def test_random_bytes_prove_no_password() -> None:
    result = misread("pn532", 1_000_000, proving=True)
    assert (result.cards, result.grants) == (0, 0)


@pytest.mark.parametrize("kind", ALPHABETS)
def test_the_bytes_of_real_frames_in_random_order_open_nothing(kind: str) -> None:
    assert misread(kind, 200_000, ALPHABETS[kind]).grants == 0


def test_what_is_counted_as_a_grant() -> None:
    result, known = Misread(), frozenset({"62E3086CED", "4711"})
    result.count([em4100("62E3086CED"), em4100("4500C5D1E9"), *keys("4711#"), *keys("47"), Garbled()], known)
    result.count([*keys("11#"), *keys("0815#")], known)
    assert (result.cards, result.keys, result.grants) == (2, 15, 2)
    listed = bytes.fromhex("D54B010100040804" + "1DC6A2F3")
    assert Asking().receive(frame(listed), 1.0) == [Card("iso14443a", "1DC6A2F3")]
    assert Asking(proving=True).receive(frame(b"\xd5\x43\x00PK"), 1.0) == [
        Card("iso14443a", "04E141124C2880", Strength.PASSWORD)
    ]


# A card that is held


def test_a_held_card_is_new_once() -> None:
    held, card = Held(), em4100("62E3086CED")
    assert [held.first(card, at / 10) for at in range(100)] == [True] + [False] * 99


def test_a_card_that_was_away_is_new_again() -> None:
    held, card = Held(), em4100("62E3086CED")
    assert held.first(card, 0.0)
    assert not held.first(card, HELD_SECONDS * 0.9)
    assert held.first(card, HELD_SECONDS * 2)


def test_two_cards_in_the_field_are_new_once_each() -> None:
    held = Held()
    assert [held.first(em4100(number), at / 10) for at, number in enumerate("ABABAB")] == [True] * 2 + [
        False
    ] * 4


def test_a_card_that_proves_more_than_before_is_new() -> None:
    held = Held()
    assert held.first(Card("iso14443a", "04A1", Strength.NUMBER), 0.0)
    assert held.first(Card("iso14443a", "04A1", Strength.KEY), 0.1)


def test_many_cards_cost_no_memory() -> None:
    held = Held()
    for number in range(1000):
        assert held.first(em4100(str(number)), 0.0)
    assert len(held._seen) == MOST_HELD


def test_neither_number_nor_key_is_shown_in_a_log() -> None:
    assert "62E3" not in repr(em4100("62E3086CED"))
    assert "7" not in repr(Key("7"))
