"""Readers and keypads on pseudo-terminals: what is shown arrives, whatever happens to the cable."""

import fcntl
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest

from deploy.demo.program import Program
from hardware.frames import (
    HELD_SECONDS,
    ONLY_NOISE,
    QUIET_SECONDS,
    Card,
    Garbled,
    Key,
    Keypad,
    Reading,
    Strength,
)
from hardware.pn532 import NO_ANSWER, CardSecret, Ntag424Key, NtagPassword
from hardware.reader import KINDS, Kind, Reader
from hardware.simulated_readers import (
    SimulatedCard,
    SimulatedPn532,
    SimulatedPort,
    id12la_frame,
    rdm6300_frame,
    wiegand_frame,
)
from tests.bench.readers import NOISE_RATE, NOISE_SECONDS, make_noise, wait_opened

Figure = Callable[..., None]

TIME_LIMIT = 5.0

TAG = Card("em4100", "62E3086CED")
OTHER_TAG = Card("em4100", "4500C5D1E9")
BADGE = Card("wiegand26", "18-37848")
BADGE_BITS = f"0{0x1293D8:024b}1"

FRAMES: dict[str, tuple[bytes, Reading]] = {
    "rdm6300": (rdm6300_frame(TAG.number), TAG),
    "id12la": (id12la_frame(TAG.number), TAG),
    "wiegand": (wiegand_frame(BADGE_BITS), BADGE),
    "keypad": (b"7", Key("7")),
}

NTAG = SimulatedCard(bytes.fromhex("04E141124C2880"), password=b"1234PK")
NTAG424 = SimulatedCard(bytes.fromhex("04958CAA5C5E80"), key=bytes(range(16)))
SECRETS: dict[str, CardSecret] = {
    "04E141124C2880": NtagPassword(b"1234", b"PK"),
    "04958CAA5C5E80": Ntag424Key(bytes(range(16))),
}


class Listener:
    """What a reader says, in order."""

    def __init__(self) -> None:
        self.readings: queue.Queue[tuple[Reading, float]] = queue.Queue()
        self.faults: queue.Queue[str | None] = queue.Queue()

    def read(self, reader: str, reading: Reading) -> None:
        assert reader == "front"
        self.readings.put((reading, time.monotonic()))

    def fault(self, reader: str, why: str | None) -> None:
        assert reader == "front"
        self.faults.put(why)

    def next(self) -> Reading:
        return self.readings.get(timeout=TIME_LIMIT)[0]

    def next_at(self) -> tuple[Reading, float]:
        return self.readings.get(timeout=TIME_LIMIT)

    def next_fault(self) -> str | None:
        return self.faults.get(timeout=TIME_LIMIT)


Start = Callable[..., Reader]


@pytest.fixture
def said() -> Listener:
    return Listener()


@pytest.fixture
def start(tmp_path: Path, said: Listener) -> Iterator[Start]:
    """Starts a reader on the link `reader`, and waits until it has opened it if it is there."""
    with ExitStack() as readers:

        def begin(kind: str, secret_of: Callable[[str], CardSecret | None] | None = None) -> Reader:
            link = tmp_path / "reader"
            reader = Reader("front", kind, str(link), said.read, said.fault, secret_of=secret_of)
            readers.callback(reader.close)
            if link.exists():
                wait_opened(link)
            return reader

        yield begin


@pytest.fixture
def port(tmp_path: Path) -> Iterator[SimulatedPort]:
    with SimulatedPort(tmp_path / "reader") as port:
        yield port


@pytest.fixture
def chip(tmp_path: Path) -> Iterator[SimulatedPn532]:
    with SimulatedPn532(tmp_path / "reader") as chip:
        yield chip


@pytest.mark.parametrize("kind", FRAMES)
def test_what_is_shown_arrives(kind: str, port: SimulatedPort, start: Start, said: Listener) -> None:
    start(kind)
    frame, reading = FRAMES[kind]
    port.send(frame)
    assert said.next() == reading


def test_cut_merged_and_wrong_frames(port: SimulatedPort, start: Start, said: Listener) -> None:
    start("rdm6300")
    tag, other = rdm6300_frame(TAG.number), rdm6300_frame(OTHER_TAG.number)
    wrong = tag.replace(b"08\x03", b"09\x03")
    for byte in tag[3:] + wrong + tag[:9] + other + b"\x02" + tag:
        port.send(bytes((byte,)))
    assert [said.next(), said.next()] == [OTHER_TAG, TAG]


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_of_64_kb_is_nothing(kind: str, port: SimulatedPort, start: Start, said: Listener) -> None:
    start(kind)
    port.send(b"\x02" + b"A" * 65536 + b"\x03")
    if kind == "keypad":
        assert said.next() == Garbled()
        threading.Event().wait(QUIET_SECONDS * 2)
    frame, reading = FRAMES[kind]
    port.send(frame)
    assert said.next() == reading


@pytest.mark.parametrize("kind", FRAMES)
def test_a_card_counts_right_after_a_megabyte_of_noise(
    kind: str, port: SimulatedPort, start: Start, said: Listener, figure: Figure
) -> None:
    reader = start(kind)
    assert make_noise(port) >= NOISE_RATE * NOISE_SECONDS * 0.5
    silent_from = time.monotonic()
    assert said.next_fault() == ONLY_NOISE
    if kind == "keypad":
        threading.Event().wait(QUIET_SECONDS * 2)
    frame, reading = FRAMES[kind]
    port.send(frame)
    found = reading_after_noise(said)
    assert found[0] == reading
    figure(f"{kind}: card after noise", found[1] - silent_from, "s", 0.3)
    assert said.next_fault() is None
    assert reader.fault is None


def reading_after_noise(said: Listener) -> tuple[Reading, float]:
    while True:
        reading, at = said.next_at()
        if isinstance(reading, Card) or (isinstance(reading, Key) and said.readings.empty()):
            return reading, at


def test_a_held_card_is_read_once_and_again_after_it_was_away(
    port: SimulatedPort, start: Start, said: Listener
) -> None:
    start("rdm6300")
    clock = threading.Event()
    for _ in range(10):
        port.send(rdm6300_frame(TAG.number))
        clock.wait(0.065)
    port.send(rdm6300_frame(OTHER_TAG.number))
    assert [said.next(), said.next()] == [TAG, OTHER_TAG]
    clock.wait(HELD_SECONDS)
    port.send(rdm6300_frame(TAG.number))
    assert said.next() == TAG


@pytest.mark.parametrize("kind", FRAMES)
def test_a_cable_that_was_pulled(
    kind: str, port: SimulatedPort, start: Start, said: Listener, figure: Figure
) -> None:
    reader = start(kind)
    port.send(FRAMES[kind][0][:-1])
    port.unplug()
    assert [said.next_fault(), said.next_fault()] == ["was unplugged", "is not plugged in"]
    assert reader.fault == "is not plugged in"
    port.plug()
    plugged = time.monotonic()
    assert said.next_fault() is None
    frame, reading = FRAMES[kind]
    port.send(frame)
    found, at = said.next_at()
    assert found == reading
    figure(f"{kind}: from the plug to the card", at - plugged, "s", 5.0)


def test_a_reader_that_is_plugged_in_after_the_start(tmp_path: Path, start: Start, said: Listener) -> None:
    reader = start("rdm6300")
    assert said.next_fault() == "is not plugged in"
    with SimulatedPort(tmp_path / "reader") as port:
        assert said.next_fault() is None
        port.send(rdm6300_frame(TAG.number))
        assert said.next() == TAG
        reader.close()


def test_a_port_that_another_program_holds(port: SimulatedPort, start: Start, said: Listener) -> None:
    other = os.open(port.link, os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(other, fcntl.LOCK_EX)
    start("rdm6300")
    assert said.next_fault() == "is used by another program"
    os.close(other)
    assert said.next_fault() is None


def test_the_keypad_beeps(port: SimulatedPort, start: Start) -> None:
    reader = start("keypad")
    reader.good()
    assert port.heard(TIME_LIMIT) == b"\a"
    reader.bad()
    assert port.heard(TIME_LIMIT) == b"\a\a\a"


def test_a_reader_without_a_beeper_is_told_nothing(port: SimulatedPort, start: Start) -> None:
    reader = start("rdm6300")
    reader.good()
    reader.bad()
    assert port.heard(0.2) == b""


def test_feedback_of_a_reader_that_was_pulled_is_not_kept(
    port: SimulatedPort, start: Start, said: Listener
) -> None:
    reader = start("keypad")
    port.unplug()
    assert said.next_fault() is not None
    for _ in range(100):
        reader.good()
    port.plug()
    while said.next_fault() is not None:
        pass
    assert len(port.heard(0.3)) <= 4
    reader.bad()
    assert b"\a\a\a" in port.heard(TIME_LIMIT)


def test_what_the_listener_raises_harms_nobody(tmp_path: Path, port: SimulatedPort, said: Listener) -> None:
    def read(name: str, reading: Reading) -> None:
        said.read(name, reading)
        raise RuntimeError("no")

    def fault(name: str, why: str | None) -> None:
        said.fault(name, why)
        raise RuntimeError("no")

    reader = Reader("front", "rdm6300", str(tmp_path / "reader"), read, fault)
    wait_opened(port.link)
    for number in (TAG.number, OTHER_TAG.number):
        port.send(rdm6300_frame(number))
    assert [said.next(), said.next()] == [TAG, OTHER_TAG]
    port.unplug()
    assert said.next_fault() is not None
    port.plug()
    while said.next_fault() is not None:
        pass
    reader.close()


class Broken(Keypad):
    """A decoder with a mistake in it that shows once."""

    shown = False

    def receive(self, data: bytes, now: float) -> list[Reading]:
        if data and not Broken.shown:
            Broken.shown = True
            raise ZeroDivisionError
        return super().receive(data, now)


def test_a_mistake_of_ours_is_a_fault_for_a_second(
    port: SimulatedPort, start: Start, said: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cast("dict[str, Kind]", KINDS), "broken", Kind(9600, lambda _: Broken()))
    start("broken")
    port.type("1")
    assert said.next_fault() == "failed: ZeroDivisionError()"
    assert said.next_fault() is None
    port.type("2")
    assert said.next() == Key("2")


@pytest.mark.parametrize("plugged", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_it_closes_within_a_second(kind: str, plugged: bool, port: SimulatedPort, start: Start) -> None:
    reader = start(kind)
    if not plugged:
        port.unplug()
    begun = time.monotonic()
    reader.close()
    reader.close()
    assert time.monotonic() - begun < 1.0


def test_it_closes_in_the_middle_of_noise(port: SimulatedPort, start: Start, said: Listener) -> None:
    reader = start("keypad")
    noise = threading.Thread(target=port.send, args=(b"\xff" * 4_000_000,))
    noise.start()
    assert said.next() == Garbled()
    begun = time.monotonic()
    reader.close()
    assert time.monotonic() - begun < 1.0
    with os.fdopen(os.open(port.link, os.O_RDWR | os.O_NOCTTY), "rb", buffering=0) as rest:
        while noise.is_alive():
            rest.read(65536)
    noise.join()


def test_a_port_that_takes_no_more_bytes_is_read_and_closed(tmp_path: Path, port: SimulatedPort) -> None:
    said = Listener()
    reader = Reader("front", "keypad", str(tmp_path / "reader"), said.read, said.fault, bad=b"\a" * 200_000)
    wait_opened(port.link)
    reader.bad()
    reader.bad()
    port.type("7")
    assert said.next() == Key("7")
    begun = time.monotonic()
    reader.close()
    assert time.monotonic() - begun < 1.0


# PN532


@pytest.mark.parametrize(
    ("card", "strength"),
    [
        (SimulatedCard(bytes.fromhex("1DC6A2F3")), Strength.NUMBER),
        (NTAG, Strength.PASSWORD),
        (NTAG424, Strength.KEY),
        (SimulatedCard(NTAG.uid), Strength.NUMBER),  # copies: the same number without the secret
        (SimulatedCard(NTAG.uid, password=b"1234xx"), Strength.NUMBER),
        (SimulatedCard(NTAG.uid, password=b"xxxxPK"), Strength.NUMBER),
        (SimulatedCard(NTAG424.uid), Strength.NUMBER),
        (SimulatedCard(NTAG424.uid, key=bytes(16)), Strength.NUMBER),
    ],
)
def test_a_card_is_as_strong_as_what_it_proves(
    card: SimulatedCard,
    strength: Strength,
    chip: SimulatedPn532,
    start: Start,
    said: Listener,
    figure: Figure,
) -> None:
    start("pn532", SECRETS.get)
    chip.show(card)
    shown = time.monotonic()
    found, at = said.next_at()
    assert found == Card("iso14443a", card.uid.hex().upper(), strength)
    figure(f"pn532: {strength} read after", at - shown, "s", 0.8)


def test_a_card_with_a_secret_held_for_long_is_one_reading(
    chip: SimulatedPn532, start: Start, said: Listener
) -> None:
    start("pn532", SECRETS.get)
    chip.show(NTAG424)
    assert said.next() == Card("iso14443a", "04958CAA5C5E80", Strength.KEY)
    threading.Event().wait(HELD_SECONDS * 1.5)
    chip.show(NTAG)
    assert said.next() == Card("iso14443a", "04E141124C2880", Strength.PASSWORD)
    assert chip.asked[0x40] == 3, "select, challenge, proof: once"


def test_a_lookup_that_fails_is_no_secret(chip: SimulatedPn532, start: Start, said: Listener) -> None:
    def failing(number: str) -> CardSecret | None:
        raise OSError("the database is locked")

    start("pn532", failing)
    chip.show(NTAG)
    assert said.next() == Card("iso14443a", "04E141124C2880", Strength.NUMBER)


def test_a_chip_that_is_deaf_is_said_to_be(chip: SimulatedPn532, start: Start, said: Listener) -> None:
    chip.deaf = True
    start("pn532")
    assert said.next_fault() == NO_ANSWER
    chip.deaf = False
    assert said.next_fault() is None
    chip.show(SimulatedCard(NTAG.uid))
    assert said.next() == Card("iso14443a", "04E141124C2880")


def test_a_chip_that_was_pulled_is_woken_again(
    chip: SimulatedPn532, start: Start, said: Listener, figure: Figure
) -> None:
    start("pn532", SECRETS.get)
    chip.unplug()
    assert said.next_fault() is not None
    chip.plug()
    chip.show(NTAG424)
    plugged = time.monotonic()
    found, at = said.next_at()
    assert found == Card("iso14443a", "04958CAA5C5E80", Strength.KEY)
    figure("pn532: from the plug to the card", at - plugged, "s", 5.0)


def test_a_card_at_the_chip_counts_right_after_noise(
    chip: SimulatedPn532, start: Start, said: Listener, figure: Figure
) -> None:
    start("pn532")
    make_noise(chip)
    silent_from = time.monotonic()
    chip.show(SimulatedCard(NTAG.uid))
    found, at = said.next_at()
    assert found == Card("iso14443a", "04E141124C2880")
    figure("pn532: card after noise", at - silent_from, "s", 0.3)


# For people


@pytest.mark.parametrize(
    ("kind", "played", "read"),
    [
        ("rdm6300", "62E3086CED", "em4100 62E3086CED (number)"),
        ("id12la", "62E3086CED", "em4100 62E3086CED (number)"),
        ("wiegand", BADGE_BITS, "wiegand26 18-37848 (number)"),
        ("keypad", "#", "key #"),
        ("pn532", "04E141124C2880", "iso14443a 04E141124C2880 (number)"),
    ],
)
def test_a_reader_is_played_and_tried_by_hand(kind: str, played: str, read: str, tmp_path: Path) -> None:
    module = (sys.executable, "-m", "hardware.try_reader")
    link = tmp_path / "reader"
    with ExitStack() as parts:
        player = parts.enter_context(
            Program([*module, "play", kind, str(link)], tmp_path / "player.log", takes_input=True)
        )
        player.wait_for("is plugged in", TIME_LIMIT)
        trial = parts.enter_context(
            Program([*module, "read", kind, str(link)], tmp_path / "trial.log", takes_input=True)
        )
        trial.wait_for("reading", TIME_LIMIT)
        wait_opened(link)
        player.say("nonsense" if kind != "keypad" else "?")
        if kind == "keypad":
            trial.wait_for("garbled keys", TIME_LIMIT)
            threading.Event().wait(QUIET_SECONDS * 2)
        else:
            player.wait_for("not shown", TIME_LIMIT)
        player.say(played)
        trial.wait_for(re.escape(read), TIME_LIMIT)
        player.stop()
        trial.wait_for("was unplugged", TIME_LIMIT)


def test_a_port_that_is_refused_is_named_to_the_person(tmp_path: Path) -> None:
    module = (sys.executable, "-m", "hardware.try_reader")
    with Program([*module, "read", "keypad", "/dev/ttyUSB77"], tmp_path / "trial.log") as trial:
        trial.wait_for("number moves when adapters are plugged", TIME_LIMIT)
        assert trial.wait(TIME_LIMIT) == 1
