"""The conversation with a PN532: frames of its manual, cards with and without a secret, and wrong answers."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.frames import HELD_SECONDS, NOISE_BYTES, ONLY_NOISE, Card, Reading, Strength
from hardware.pn532 import (
    ANSWER_SECONDS,
    GAP_SECONDS,
    NO_ANSWER,
    PAUSE_SECONDS,
    CardSecret,
    Frames,
    Ntag424Key,
    NtagPassword,
    Pn532,
    crc_a,
    decrypted,
    encrypted,
    frame,
)

FIRMWARE = bytes.fromhex("0000FF06FAD50332010607E800")
SAM_READY = bytes.fromhex("0000FF02FED5151600")
ACK = bytes.fromhex("0000FF00FF00")

UID = "04E141124C2880"
NTAG = f"4B 01 01 0044 00 07 {UID}"
NTAG424 = f"4B 01 01 0344 20 07 {UID} 06 77 77 71 02 80"
CLASSIC = "4B 01 01 0004 08 04 1DC6A2F3"
NOBODY = "4B 00"

PASSWORD = NtagPassword(bytes.fromhex("11223344"), bytes.fromhex("A55A"))

# AN12196, the example of AuthenticateEV2First with key 0
KEY = Ntag424Key(bytes(16))
RND_A = bytes.fromhex("13C5DB8A5930439FC3DEF9A4C675360F")
CHALLENGE = "41 00 A04C124213C186F22399D33AC2A30215 91AF"
OUR_PROOF = bytes.fromhex("35C3E05A752E0144BAC0DE51C1F22C56B34408A23D8AEA266CAB947EA8E0118D")
THEIR_PROOF = "41 00 3FA64DB5446D1F34CD6EA311167F5E4985B89690C04A05F17FA7AB2F08120663 9100"


class Talk:
    """The other side of the wire, which looks at each question and answers it."""

    def __init__(self, secret: CardSecret | None = None) -> None:
        self.chip = Pn532(lambda uid: secret if uid == UID else None, lambda size: RND_A[:size])
        self.now = 0.0

    def asked(self) -> bytes:
        """The command asked now, without its direction."""
        sent = self.chip.send(self.now)
        assert sent.endswith(b"\x00")
        payloads = Frames().receive(sent, 0.0)
        assert len(payloads) == 1
        assert payloads[0][0] == 0xD4
        return payloads[0][1:]

    def say(self, answer: str) -> list[Reading]:
        self.now += 0.01
        return self.chip.receive(ACK + frame(b"\xd5" + bytes.fromhex(answer)), self.now)

    def wait(self, seconds: float) -> list[Reading]:
        self.now += seconds
        return self.chip.receive(b"", self.now)

    def ready(self) -> None:
        assert self.asked() == bytes.fromhex("14011401")
        self.say("15")
        assert self.asked() == bytes.fromhex("3205FF0101")
        self.say("33")

    def poll(self, listed: str) -> list[Reading]:
        """One question for cards, answered, up to the next one."""
        assert self.asked() == bytes.fromhex("4A0100")
        found = self.say(listed)
        return found + self.rest()

    def rest(self) -> list[Reading]:
        assert self.asked() == bytes.fromhex("320100"), (
            "the field goes off, so that the next card begins anew"
        )
        found = self.say("33")
        assert self.chip.send(self.now) == b""
        return found + self.wait(PAUSE_SECONDS)


@pytest.fixture
def talk() -> Talk:
    ready = Talk()
    ready.ready()
    return ready


def iso(uid: str, strength: Strength = Strength.NUMBER) -> Card:
    return Card("iso14443a", uid, strength)


# Frames


def test_the_commands_are_the_manuals_frames() -> None:
    assert frame(bytes.fromhex("D402")) == bytes.fromhex("0000FF02FED4022A00")
    assert frame(bytes.fromhex("D44A0100")) == bytes.fromhex("0000FF04FCD44A0100E100")
    assert frame(bytes.fromhex("D414011401")) == bytes.fromhex("0000FF05FBD4140114010200")
    assert Pn532().send(0.0) == b"\x55\x55" + bytes(14) + ACK + bytes.fromhex("0000FF05FBD4140114010200")


def test_a_frame_with_what_comes_before_and_after_it() -> None:
    assert Frames().receive(ACK + FIRMWARE + ACK + SAM_READY, 0.0) == [
        bytes.fromhex("D50332010607"),
        bytes.fromhex("D515"),
    ]


@pytest.mark.parametrize("at", range(3, len(FIRMWARE) - 1))
def test_a_frame_with_a_wrong_byte_is_nothing(at: int) -> None:
    broken = FIRMWARE[:at] + bytes((FIRMWARE[at] ^ 0x10,)) + FIRMWARE[at + 1 :]
    frames = Frames()
    assert frames.receive(broken, 0.0) == []
    assert bytes.fromhex("D515") in frames.receive(SAM_READY, GAP_SECONDS * 2)


def test_a_frame_of_64_kb_is_none_and_hides_nothing() -> None:
    frames = Frames()
    extended = bytes.fromhex("0000FFFFFFFFFF02") + bytes(65_000)
    assert frames.receive(extended + SAM_READY, 0.0) == [b"\xd5\x15"]
    assert len(frames._kept) < 300


def test_an_answer_behind_half_a_frame_is_found_after_a_short_silence() -> None:
    frames = Frames()
    assert frames.receive(b"\x00\x00\xff\xfe\x02\xd5" + SAM_READY, 0.0) == []
    assert frames.receive(b"", GAP_SECONDS * 2) == [b"\xd5\x15"]


@given(
    parts=st.lists(st.binary(max_size=30) | st.sampled_from([FIRMWARE, SAM_READY, ACK, FIRMWARE[:8]])),
    sizes=st.lists(st.integers(1, 9)),
)
def test_the_size_of_the_pieces_does_not_matter(parts: list[bytes], sizes: list[int]) -> None:
    text = b"".join(parts)
    whole, pieces = Frames(), Frames()
    found = []
    for at in range(len(text)):
        found += pieces.receive(text[at : at + 1], 0.0)
    assert found == whole.receive(text, 0.0)
    assert len(pieces._kept) < 300
    rest = Frames()
    some = []
    while text:
        size = sizes.pop() if sizes else len(text)
        some += rest.receive(text[:size], 0.0)
        text = text[size:]
    assert some == found


@given(pieces=st.lists(st.tuples(st.binary(max_size=300), st.floats(0, 1))))
def test_no_bytes_end_the_conversation(pieces: list[tuple[bytes, float]]) -> None:
    chip, now = Pn532(), 0.0
    for data, pause in pieces:
        chip.send(now)
        now += pause
        assert chip.receive(data, now) == []
    for _ in range(10):  # whatever it was in the middle of, it asks for cards again
        now += ANSWER_SECONDS + PAUSE_SECONDS
        chip.receive(b"", now)
        if Frames().receive(chip.send(now), 0.0) == [bytes.fromhex("D414011401")]:
            break
    else:
        pytest.fail("it has given up")


# Cards that have a number


def test_a_card_with_four_bytes(talk: Talk) -> None:
    assert talk.poll(CLASSIC) == [iso("1DC6A2F3")]


def test_a_card_with_seven_bytes(talk: Talk) -> None:
    assert talk.poll(NTAG) == [iso(UID)]
    assert talk.poll(NOBODY) == []


def test_a_telephone_makes_up_a_number_each_time_and_is_no_card(talk: Talk) -> None:
    assert talk.poll("4B 01 01 0004 20 04 08A1B2C3") == []


@pytest.mark.parametrize(
    "listed", ["4B", "4B 02 01 0044 00 07", "4B 01 01 0044 00 07 04E141", "4B 01 01 0044 00 00"]
)
def test_a_card_that_is_cut_is_none(talk: Talk, listed: str) -> None:
    assert talk.poll(listed) == []


# Cards that have a secret


def test_an_ntag_that_knows_its_password() -> None:
    talk = Talk(PASSWORD)
    talk.ready()
    assert talk.asked() == bytes.fromhex("4A0100")
    assert talk.say(NTAG) == []
    assert talk.asked() == bytes.fromhex("421B11223344")
    assert talk.say("43 00 A55A") == [iso(UID, Strength.PASSWORD)]


def test_its_answer_may_carry_its_crc() -> None:
    assert crc_a(bytes(2)) == bytes.fromhex("A01E"), "the example of ISO/IEC 14443-3 annex B"
    talk = Talk(PASSWORD)
    talk.ready()
    talk.asked()
    talk.say(NTAG)
    talk.asked()
    assert talk.say("43 00 A55A" + crc_a(bytes.fromhex("A55A")).hex()) == [iso(UID, Strength.PASSWORD)]


def tried(talk: Talk, *answers: str) -> list[Reading]:
    """Shows the card, and answers what it is asked with these."""
    assert talk.asked() == bytes.fromhex("4A0100")
    found = talk.say(NTAG424 if isinstance(talk.chip._secret_of(UID), Ntag424Key) else NTAG)  # type: ignore[misc]
    for answer in answers:
        talk.asked()
        found += talk.say(answer)
    return found


def test_a_copy_with_another_acknowledge_is_a_mere_number_at_once() -> None:
    talk = Talk(PASSWORD)
    talk.ready()
    assert tried(talk, "43 00 A55B") == [iso(UID)]


@pytest.mark.parametrize("answer", ["43 01", "43 00", "43 00 A5", "43 00 A55A 0000", "43"])
def test_a_card_that_could_not_be_asked_gets_a_second_try(answer: str) -> None:
    talk = Talk(PASSWORD)
    talk.ready()
    assert tried(talk, answer) == []
    talk.rest()
    assert tried(talk, "43 00 A55A") == [iso(UID, Strength.PASSWORD)]


def test_and_no_third() -> None:
    talk = Talk(PASSWORD)
    talk.ready()
    assert tried(talk, "43 01") == []
    talk.rest()
    assert tried(talk, "43 01") == [iso(UID)]


def test_a_try_that_failed_is_forgotten_with_the_card() -> None:
    talk = Talk(PASSWORD)
    talk.ready()
    assert tried(talk, "43 01") == []
    talk.rest()
    assert talk.poll(NOBODY) == []
    assert tried(talk, "43 01") == []


def test_a_held_card_is_not_asked_again_before_it_was_away() -> None:
    talk = Talk(PASSWORD)
    talk.ready()
    assert tried(talk, "43 00 A55A") == [iso(UID, Strength.PASSWORD)]
    talk.rest()
    for _ in range(20):
        assert talk.poll(NTAG) == [iso(UID, Strength.PASSWORD)]
    talk.now += HELD_SECONDS
    assert tried(talk, "43 00 A55B") == [iso(UID)]


def test_another_card_in_its_place_is_asked() -> None:
    talk = Talk(PASSWORD)
    talk.ready()
    assert tried(talk, "43 00 A55A") == [iso(UID, Strength.PASSWORD)]
    talk.rest()
    assert talk.poll(CLASSIC) == [iso("1DC6A2F3")]
    assert tried(talk, "43 00 A55B") == [iso(UID)]


def test_a_card_with_a_key_as_in_the_application_note() -> None:
    talk = Talk(KEY)
    talk.ready()
    talk.asked()
    assert talk.say(NTAG424) == []
    assert talk.asked() == bytes.fromhex("4001 00A4040C07D276000085010100")
    assert talk.say("41 00 9000") == []
    assert talk.asked() == bytes.fromhex("4001 9071000002000000")
    assert talk.say(CHALLENGE) == []
    assert talk.asked() == bytes.fromhex("4001 90AF000020") + OUR_PROOF + b"\x00"
    assert talk.say(THEIR_PROOF) == [iso(UID, Strength.KEY)]


@pytest.mark.parametrize(
    "last",
    [
        "41 00 91AE",  # the card does not take our proof
        "41 00 3FA64DB5446D1F34CD6EA311167F5E4985B89690C04A05F17FA7AB2F08120664 9100",
        "41 00" + OUR_PROOF.hex() + "9100",  # an echo
        "41 00" + "00" * 32 + "9100",
        "41 00 9100",
    ],
)
def test_a_card_with_another_key_is_a_mere_number_at_once(last: str) -> None:
    talk = Talk(KEY)
    talk.ready()
    assert tried(talk, "41 00 9000", CHALLENGE, last) == [iso(UID)]


@pytest.mark.parametrize(
    "answers",
    [
        ["41 00 6A82"],  # no such application: not an NTAG 424 DNA
        ["41 01"],
        ["41 00 9000", "41 00 917E"],
        ["41 00 9000", "41 00 A04C1242 91AF"],
        ["41 00 9000", "41 01"],
        ["41 00 9000", CHALLENGE, "41 01"],
    ],
)
def test_a_card_that_cannot_prove_a_key_is_a_mere_number_at_the_second_try(answers: list[str]) -> None:
    talk = Talk(KEY)
    talk.ready()
    assert tried(talk, *answers) == []
    talk.rest()
    assert tried(talk, *answers) == [iso(UID)]


@pytest.mark.parametrize(("secret", "listed"), [(PASSWORD, NTAG424), (KEY, NTAG)])
def test_a_card_of_another_kind_than_its_number_says_is_a_mere_number(
    secret: CardSecret, listed: str
) -> None:
    talk = Talk(secret)
    talk.ready()
    assert talk.poll(listed) == []
    assert talk.poll(listed) == [iso(UID)]


def test_our_aes_is_the_cards() -> None:
    text = RND_A * 2
    assert decrypted(KEY.key, encrypted(KEY.key, text)) == text


@pytest.mark.parametrize(
    "make",
    [
        lambda: NtagPassword(b"123", b"12"),
        lambda: NtagPassword(b"1234", b"1"),
        lambda: Ntag424Key(b"short"),
        lambda: Ntag424Key(bytes(16), 5),
    ],
)
def test_a_secret_of_the_wrong_size_is_refused(make: Callable[[], CardSecret]) -> None:
    with pytest.raises(ValueError, match="an NTAG"):
        make()


def test_secrets_are_not_shown() -> None:
    assert "x11" not in repr(PASSWORD)
    assert "x00" not in repr(KEY)


# What goes wrong with the chip


def test_a_chip_that_does_not_answer_is_asked_for_ever_and_said_to_be_silent() -> None:
    talk = Talk()
    for _ in range(3):
        assert talk.asked() == bytes.fromhex("14011401")
        talk.wait(ANSWER_SECONDS)
    assert talk.chip.fault == NO_ANSWER
    talk.ready()
    assert talk.chip.fault is None
    assert talk.poll(CLASSIC) == [iso("1DC6A2F3")]


def test_one_lost_answer_is_no_fault_and_costs_less_than_300_ms(talk: Talk) -> None:
    begun = talk.now
    talk.asked()
    talk.wait(ANSWER_SECONDS)
    assert talk.chip.fault is None
    talk.ready()
    assert talk.poll(CLASSIC) == [iso("1DC6A2F3")]
    assert talk.now - begun - PAUSE_SECONDS <= 0.3


def test_noise_instead_of_answers_is_called_so() -> None:
    talk = Talk()
    for _ in range(3):
        talk.asked()
        talk.chip.receive(b"\xaa" * NOISE_BYTES, talk.now)
        talk.wait(ANSWER_SECONDS)
    assert talk.chip.fault == ONLY_NOISE


def test_an_answer_to_another_question_is_not_taken(talk: Talk) -> None:
    talk.asked()
    assert talk.say("43 00 A55A") == []
    assert talk.chip.send(talk.now) == b""
    assert talk.say(CLASSIC) == [iso("1DC6A2F3")]


def test_a_card_is_not_taken_while_nobody_asked(talk: Talk) -> None:
    talk.asked()
    talk.say(NOBODY)
    talk.asked()
    talk.say("33")
    assert talk.say(CLASSIC) == []
