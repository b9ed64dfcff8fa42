"""Sentences as WAV files, spoken by espeak-ng.

Rule: the same sentence gives the same file, made once and kept in a folder.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

SECONDS = 10.0


@dataclass(frozen=True)
class Sentence:
    """What somebody says, and in which espeak-ng voice."""

    text: str
    voice: str
    words_per_minute: int = 160


VISITOR = Sentence(
    "Good morning, this is the parcel service. I have a large box for the second floor.", "en-gb+m3"
)
RESIDENT = Sentence(
    "Hello, who is there please? Just a moment, I will open the front door for you.", "en-us+f4"
)
PASSER_BY = Sentence(
    "Yesterday evening nine trains ran late because of heavy snow along the coast.", "en-gb-scotland+m7"
)


def spoken(sentence: Sentence, folder: Path, rate: int = 16_000, lead_s: float = 0.5) -> Path:
    """A WAV file (mono, 16 bit) of the sentence; blocks about 0.2 s the first time.

    The file lasts 10 s with silence after the words, so that it can be played around and around.

    Args:
        sentence: what to say.
        folder: where the files are kept; created when missing. Several processes may share it.
        rate: samples per second.
        lead_s: silence before the first word, seconds.

    Raises:
        subprocess.CalledProcessError: espeak-ng or sox failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(f"{sentence!r} {rate} {lead_s} {SECONDS}".encode()).hexdigest()[:16]
    path = folder / f"{name}.wav"
    if path.exists():
        return path
    raw = folder / f"{name}-{os.getpid()}-raw.wav"
    ready = folder / f"{name}-{os.getpid()}.wav"
    speed = str(sentence.words_per_minute)
    _run("espeak-ng", "-v", sentence.voice, "-s", speed, "-w", raw, sentence.text)
    # No dither (-D), so that the file is the same each time; 6 dB of room for resamplers.
    shape = ("gain", "-n", "-6", "rate", "-h", rate, "pad", lead_s, SECONDS, "trim", 0, SECONDS)
    _run("sox", "-V1", "-D", raw, "-b", 16, "-c", 1, ready, *shape)
    raw.unlink()
    ready.replace(path)  # at once, whoever else makes the same file
    return path


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
