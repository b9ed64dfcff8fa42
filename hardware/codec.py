"""The sound card: which cards there are, which one a setting means, and how loud it hears.

One rule: a card is named by its ALSA id. Card numbers move after a reboot (raspberrypi/linux #5592).
"""

import os
import re
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ctypes import CDLL, CFUNCTYPE, c_char_p, c_int
from dataclasses import dataclass
from math import log10, sqrt
from pathlib import Path
from typing import Any

PROC_ASOUND = Path("/proc/asound")
ALSA_CONFIGS = ("/usr/share/alsa/alsa.conf", "/etc/alsa/conf.d/*.conf", "/etc/asound.conf")

FULL_SCALE = 32768
SILENCE_DBFS = -120.0
"""What digital silence is called, since its level has no logarithm."""
SETTLE_SECONDS = 0.2
"""How long a codec thumps after it is opened; not measured."""

_CARD_LINE = re.compile(r"^\s*(\d+)\s*\[(\S+)\s*\]:\s*(.*)$", re.MULTILINE)
_CARD_OF_PCM = re.compile(r"^(?:hw|plughw|default|sysdefault|dmix|dsnoop|front):(?:CARD=)?([^,]+)")
_PCM_IN_CONFIG = re.compile(r"^\s*pcm\.!?([\w-]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Card:
    """A sound card: its number today, its id, and its name for people."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Level:
    """How loud a microphone was.

    Attributes:
        rms_dbfs: 0 is a full-scale square wave, a full-scale sine is -3.
        peak_dbfs: 0 is full scale.
        clipped: whether a sample reached full scale.
        sample_rate: of the measurement, in hertz.
    """

    rms_dbfs: float
    peak_dbfs: float
    clipped: bool
    sample_rate: int


class CardMissing(OSError):
    """The sound card that the settings name is not there; the text lists those that are."""


def cards(proc: Path = PROC_ASOUND) -> tuple[Card, ...]:
    """The sound cards there are now, by number; none when the kernel has no sound."""
    try:
        text = (proc / "cards").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ()
    return tuple(
        Card(int(number), card_id, name.strip()) for number, card_id, name in _CARD_LINE.findall(text)
    )


def find(device: str, proc: Path = PROC_ASOUND, configs: Iterable[str] | None = None) -> str:
    """The ALSA PCM name that a setting means.

    Args:
        device: the id of a card ("seeed2micvoicec"), a PCM of a card ("plughw:CARD=seeed2micvoicec") or any
            PCM that ALSA's configuration defines ("default").
        proc: where the kernel lists the cards.
        configs: ALSA's configuration files, absolute, with wildcards; if None, `$ALSA_CONFIG_PATH` and the
            system's. A service has no ~/.asoundrc.

    Raises:
        ValueError: the card is given by its number.
        CardMissing: there is no such card, and no PCM of that name.
    """
    present = cards(proc)
    ids = {card.id for card in present}
    if device in ids:
        return f"plughw:CARD={device}"
    of_card = _CARD_OF_PCM.match(device)
    card = of_card[1] if of_card else device
    if card.isdecimal():
        raise ValueError(
            f"sound device {device!r}: card numbers move at a reboot, use the id{_list(present)}"
        )
    if of_card and card in ids:
        return device
    if not of_card and (":" in device or device in ("default", "null") or device in _configured(configs)):
        return device
    raise CardMissing(f"sound device {device!r} is not there{_list(present)}")


def measure(device: str, seconds: float, proc: Path = PROC_ASOUND) -> Level:
    """Listens to the microphone of a device and says how loud it is; blocks for `seconds` and a little more.

    Opens an input stream of its own through PyAudio, so a card without dsnoop must not be in a call
    meanwhile. Not for the application's loop. While it runs, messages of the ALSA and JACK libraries are
    dropped in the whole process.

    Args:
        device: as for `find`.
        seconds: how long to listen.
        proc: where the kernel lists the cards.

    Raises:
        ValueError: as for `find`.
        CardMissing: as for `find`, or it has no microphone.
        OSError: the card is busy or failed.
    """
    pcm = find(device, proc)
    with _silenced():
        import pyaudio

        audio = pyaudio.PyAudio()
        try:
            infos = [audio.get_device_info_by_index(number) for number in range(audio.get_device_count())]
            info = _input(infos, pcm, cards(proc))
            rate, most = int(info["defaultSampleRate"]), int(info["maxInputChannels"])
            channels = most if most <= 8 else 1  # a card wants all of its channels, a plug offers dozens
            stream = audio.open(
                rate, channels, pyaudio.paInt16, input=True, input_device_index=int(info["index"])
            )
            try:
                stream.read(int(SETTLE_SECONDS * rate), exception_on_overflow=False)
                heard = stream.read(int(seconds * rate), exception_on_overflow=False)
            finally:
                stream.close()
        finally:
            audio.terminate()
    return level(array("h", heard), rate)


def level(samples: "array[int]", sample_rate: int) -> Level:
    """The level of signed 16-bit samples, all channels together."""
    peak = max(max(samples, default=0), -min(samples, default=0))
    rms = sqrt(sum(sample * sample for sample in samples) / len(samples)) if samples else 0.0
    return Level(_dbfs(rms), _dbfs(peak), peak >= FULL_SCALE - 1, sample_rate)


def _dbfs(amplitude: float) -> float:
    return round(20 * log10(amplitude / FULL_SCALE), 1) if amplitude else SILENCE_DBFS


def _list(present: tuple[Card, ...]) -> str:
    return "; cards: " + (", ".join(f"{card.id} ({card.name})" for card in present) or "none")


def _configured(configs: Iterable[str] | None) -> set[str]:
    if configs is None:
        configs = (*filter(None, os.environ.get("ALSA_CONFIG_PATH", "").split(":")), *ALSA_CONFIGS)
    names: set[str] = set()
    for pattern in configs:
        for file in Path("/").glob(pattern.lstrip("/")):
            if file.is_file():  # conf.d is made of links, and packages leave dead ones behind
                names.update(_PCM_IN_CONFIG.findall(file.read_text(encoding="utf-8", errors="replace")))
    return names


def _input(infos: list[Any], pcm: str, present: tuple[Card, ...]) -> Any:
    """PortAudio's entry for a PCM: the one of that name, or the first of its card, with "(hw:1,0)" in it."""
    of_card = _CARD_OF_PCM.match(pcm)
    marks = [f"(hw:{card.index}," for card in present if of_card and card.id == of_card[1]]
    for info in infos:
        name = str(info["name"])
        if info["maxInputChannels"] > 0 and (name == pcm or any(mark in name for mark in marks)):
            return info
    raise CardMissing(f"sound device {pcm!r} has no microphone that PortAudio can open{_list(present)}")


# Kept for ever: another thread may be inside one of them when the libraries get their own handlers back.
_IGNORE_ALSA = CFUNCTYPE(None, c_char_p, c_int, c_char_p, c_int, c_char_p)(lambda *_: None)
_IGNORE_JACK = CFUNCTYPE(None, c_char_p)(lambda _: None)


@contextmanager
def _silenced() -> Iterator[None]:
    """Keeps the probing of PortAudio off stderr through the libraries' own hooks.

    Redirecting file descriptor 2 would also swallow what other threads log.
    """
    hooks: list[tuple[str, str, Any]] = [
        ("libasound.so.2", "snd_lib_error_set_handler", _IGNORE_ALSA),
        ("libjack.so.0", "jack_set_error_function", _IGNORE_JACK),
        ("libjack.so.0", "jack_set_info_function", _IGNORE_JACK),
    ]
    restore = []
    for library, setter, handler in hooks:
        try:
            set_handler = getattr(CDLL(library), setter)
        except OSError:
            continue
        set_handler(handler)
        restore.append(set_handler)
    try:
        yield
    finally:
        for set_handler in restore:
            set_handler(None)
