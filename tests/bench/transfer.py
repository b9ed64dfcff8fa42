"""A visit that goes through three telephones: for how long nobody who should hear the visitor does.

The sound of the street is a tone that rises steadily, so that its pitch tells the time: what each telephone
has recorded shows which moments of the street were heard there. Clocks give only the seconds between two
commands.
"""

import itertools
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.demo.hearing import wave
from deploy.demo.linphone import Linphone
from deploy.demo.phone import Phone
from deploy.demo.program import ProgramError, wait_until
from deploy.demo.site import Site
from deploy.demo.sound import RATE, VirtualCard
from deploy.demo.station import Station, settings
from tests.bench.rows import Row

LOWEST_HERTZ, HIGHEST_HERTZ = 400.0, 2900.0
STREET_SECONDS = 50.0
WINDOW_SECONDS, HOP_SECONDS = 0.06, 0.02
QUIETEST = 1e-3
PHASE_SECONDS = 3.0
LEAD_SECONDS = 1.0
HOLD_SECONDS = 2.0

JOIN = '[incoming]\npermit = ["sip:flat3@site.example"]\nwaiting = "join"\n'


def measure(folder: Path) -> Iterator[Row]:
    """The resident holds, resumes, asks a second one and transfers; a third joins; the second leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    users = {name: f"{name}-secret" for name in ("door", "flat1", "flat2", "flat3")}
    with ExitStack() as parts:
        site = parts.enter_context(Site(folder / "site", users=users))
        card = parts.enter_context(VirtualCard(folder / "card"))
        text = settings(site.account("door"), [(site.uri("flat1"), 20)], device="door", more=JOIN)
        station = parts.enter_context(Station(folder / "door", users["door"], text, card.environment))
        station.wait_registered()
        first, second = (_softphone(folder, site, user, parts) for user in ("flat1", "flat2"))
        third = parts.enter_context(Phone(folder / "flat3", site.account("flat3"), records=True))
        third.wait_registered()
        done = _visit(site, station, card, street(folder), first, second, third)
    yield from _rows(done, *(heard(each) for each in (_record(first), _record(second), third.recording())))


@dataclass(frozen=True)
class _Commands:
    """When each was given, in monotonic seconds."""

    held: float
    resumed: float
    asked: float
    sent: float
    joined: float


def _visit(
    site: Site,
    station: Station,
    card: VirtualCard,
    street: Path,
    first: Linphone,
    second: Linphone,
    third: Phone,
) -> _Commands:
    station.press()
    first.wait_ringing()
    first.answer()
    station.wait_event("CallAnswered")
    first.wait_established()
    card.say(street)
    _talk(station, LEAD_SECONDS + PHASE_SECONDS)
    held = _now(first.hold)
    station.wait_event("CallHeld")
    wait_until(lambda: False, HOLD_SECONDS)
    resumed = _now(lambda: first.resume("1"))
    station.wait_event("CallResumed")
    _talk(station, PHASE_SECONDS)
    asked = _now(first.hold)
    station.wait_event("CallHeld")
    first.dial(site.uri("flat2"))
    second.wait_ringing()
    second.answer()
    second.wait_established()
    first.wait_established()
    sent = _now(lambda: first.transfer("1", to_call="2"))
    station.wait_event("CallTransferred")
    station.wait_event("CallAnswered")
    _talk(station, PHASE_SECONDS)
    third.dial(site.uri("door"))
    joined = third.wait_established().at
    station.wait_action("Mix")
    _talk(station, PHASE_SECONDS)
    second.hang_up()
    station.wait_event("CallEnded")
    _talk(station, PHASE_SECONDS)
    third.hang_up()
    station.wait_state("Idle")
    return _Commands(held, resumed, asked, sent, joined)


def _rows(
    done: _Commands, at_first: Sequence[float], at_second: Sequence[float], at_third: Sequence[float]
) -> Iterator[Row]:
    *_, usual, hold = sorted(after - before for before, after in itertools.pairwise(at_first))
    missed, last = hold - (done.resumed - done.held), at_first[-1]
    yield Row("longest hole while nothing happens: what the computer itself loses", usual - HOP_SECONDS, "s")
    yield Row("on hold: what the first telephone hears of the street", max(-missed, 0.0), "s", 0.3)
    yield Row("resumed: until it is heard there again", max(missed, 0.0), "s", 1.0)
    yield Row(
        "transferred: until it is heard at the second telephone",
        at_second[0] - last - (done.sent - done.asked),
        "s",
        1.0,
    )
    yield Row("the second telephone: longest hole, while a third joins", _hole(at_second), "s", 0.5)
    yield Row(
        "a third joins: until it is heard there", at_third[0] - last - (done.joined - done.asked), "s", 1.0
    )
    yield Row("the third telephone: longest hole, while the second leaves", _hole(at_third), "s", 0.5)


def _record(phone: Linphone) -> Path:
    return phone.folder / "heard.wav"


def heard(recording: Path) -> list[float]:
    """Which moments of the street are in a recording, in seconds from its beginning, in the order heard."""
    sound, rate = wave(recording)
    size, hop = round(WINDOW_SECONDS * rate), round(HOP_SECONDS * rate)
    if len(sound) < size:
        return []
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop]
    loud = np.sqrt((frames**2).mean(axis=1)) > QUIETEST
    power = np.abs(np.fft.rfft(frames * np.hanning(size), 4 * size)) ** 2
    peaks = power.argmax(axis=1)
    pure = np.array(
        [row[max(0, at - 16) : at + 17].sum() > row.sum() / 2 for row, at in zip(power, peaks, strict=True)]
    )
    hertz = peaks[loud & pure] * rate / (4 * size)
    street = hertz[(hertz >= LOWEST_HERTZ) & (hertz <= HIGHEST_HERTZ)]
    moments = (street - LOWEST_HERTZ) / (HIGHEST_HERTZ - LOWEST_HERTZ) * STREET_SECONDS
    return [float(moment) for moment in moments]


def street(folder: Path) -> Path:
    """A WAV file of the sound of the street."""
    path = folder / "street.wav"
    rise = f"{LOWEST_HERTZ:g}:{HIGHEST_HERTZ:g}"
    shape = ["-r", str(RATE), "-b", "16", "-c", "1", str(path), "synth", str(STREET_SECONDS), "sine", rise]
    subprocess.run(["sox", "-V1", "-D", "-n", *shape, "gain", "-9"], check=True)
    return path


def _softphone(folder: Path, site: Site, user: str, parts: ExitStack) -> Linphone:
    """One that can ask before it transfers; it sends silence and keeps what it hears."""
    silence = folder / "silence.wav"
    subprocess.run(
        ["sox", "-V1", "-D", "-n", "-r", "16000", "-b", "16", "-c", "1", silence, "trim", "0", "120"],
        check=True,
    )
    phone = parts.enter_context(Linphone(folder / user, site.account(user)))
    phone.wait_registered()
    phone.command(f"play {silence}")
    phone.command(f"record {_record(phone)}")
    return phone


def _talk(station: Station, seconds: float) -> None:
    """Let so many seconds of sound pass, as the station's own packets tell (50 a second)."""

    def sent() -> int:
        return int((station.status()["call"]["tx"] or {"packets": 0})["packets"])

    end = sent() + int(seconds * 50)
    if not wait_until(lambda: sent() >= end, seconds + 5.0, pause=0.1):
        raise ProgramError("the station sends no sound")


def _now(command: Callable[[], None]) -> float:
    """Give a command; when that was."""
    at = time.monotonic()
    command()
    return at


def _hole(moments: Sequence[float]) -> float:
    """The most of the street that is missing between two moments that were heard."""
    return max(after - before for before, after in itertools.pairwise(moments)) - HOP_SECONDS
