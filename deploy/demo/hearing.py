"""Whether a voice is really in a recording.

Rule: it listens as people do, to how loud each band of the telephone's range is from moment to moment,
and not to the wave itself. So a codec, another sampling rate, a delay, a level or the drift of a clock
does not matter, while other words, silence, a tone or noise do.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deploy.demo.program import wait_until

_HOP_S = 0.010
_FRAME_S = 0.032
_BANDS_HZ = np.geomspace(300.0, 3400.0, 17)
_QUIETEST_DBFS = -70.0  # what is below is silence: the noise of 16-bit converters and of A-law
_DEPTH_DB = 35.0  # and so is what is this far below the loud parts of a recording

# The evidence is in tests/integration/demo/test_demo_hearing.py. The right sentence scores 0.88 and more
# after a call, and still 0.77 in noise as loud as itself. The right words in another voice score 0.43 at
# most, other sentences 0.25, noise, tones and silence 0.18.
CLEAR = 0.6


@dataclass(frozen=True)
class Heard:
    """The result of listening for one voice in one recording.

    Attributes:
        score: likeness of the best place, 1 is the same sound and 0 is nothing of it.
        level_dbfs: loudness of the voice in the recording (RMS while it speaks, full scale is 0).
        delay_s: how much later than in the reference file it is, seconds, to about 10 ms.
    """

    score: float
    level_dbfs: float
    delay_s: float

    @property
    def clearly(self) -> bool:
        """Whether this was the voice."""
        return self.score >= CLEAR


def heard(reference: Path, recording: Path) -> Heard:
    """Look for the voice of one WAV file (16 bit, any rate) in another; blocks some 50 ms a minute.

    Raises:
        ValueError: the reference holds no voice, or a file is not a WAV file of 16 bit.
    """
    pattern, power = _bands(reference)
    loud = np.flatnonzero(power > power.max() * 10 ** (-_DEPTH_DB / 10))
    if power.max() < 10 ** (_QUIETEST_DBFS / 10):
        raise ValueError(f"{reference} holds no voice")
    first, last = int(loud[0]), int(loud[-1]) + 1
    pattern = pattern[first:last]
    frames = len(pattern)
    speaks = power[first:last] > power.max() * 10 ** (-_DEPTH_DB / 10)

    signal, signal_power = _bands(recording)
    # Half a sentence at the edge of the recording shall still be compared with it.
    edge = frames // 2
    signal = np.pad(signal, ((edge, edge + frames), (0, 0)))
    signal_power = np.pad(signal_power, (edge, edge + frames))

    scores = _likeness(pattern, signal)
    best = int(scores.argmax())
    voice = signal_power[best : best + frames][speaks].mean()
    return Heard(
        score=max(float(scores[best]), 0.0),
        level_dbfs=float(10 * np.log10(max(voice, 1e-12))),
        delay_s=(best - edge - first) * _HOP_S,
    )


def wait_heard(reference: Path, recording: Path, timeout: float) -> Heard:
    """Block until the voice is clearly in a recording that is still growing.

    That is as soon as most of the sentence is there; `heard` of the whole recording scores higher.

    Raises:
        TimeoutError: it was not within `timeout` seconds.
    """
    last = Heard(0.0, -120.0, 0.0)

    def now() -> bool:
        nonlocal last
        last = heard(reference, recording)
        return last.clearly

    if not wait_until(now, timeout, pause=0.25):
        raise TimeoutError(f"{reference} is not in {recording} after {timeout:g} s: {last}")
    return last


def _bands(path: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Loudness over time: dB above silence per frame and band, and the power of all bands per frame."""
    samples, rate = wave(path)
    size, hop = round(_FRAME_S * rate), round(_HOP_S * rate)
    samples = np.pad(samples, (0, size))  # so that an empty recording has one frame too
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop]
    window = np.hanning(size)
    # Scaled so that the bins of one frame add up to its mean square.
    spectrum = np.abs(np.fft.rfft(frames * window)) ** 2 * (2 / size / (window**2).sum())
    edges = np.round(_BANDS_HZ * size / rate).astype(int)
    power = np.stack([spectrum[:, low:high].sum(axis=1) for low, high in pairwise(edges)], axis=1)
    total = power.sum(axis=1)
    floor = max(np.percentile(power, 99) * 10 ** (-_DEPTH_DB / 10), 10 ** (_QUIETEST_DBFS / 10) / len(edges))
    return 10 * np.log10(np.maximum(power / floor, 1.0)), total


def wave(path: Path) -> tuple[npt.NDArray[np.float64], int]:
    """Samples from -1 to 1 and their rate; of a file that is still being written, what is there."""
    raw = path.read_bytes()
    form, data = raw.find(b"fmt "), raw.find(b"data")
    if not raw.startswith(b"RIFF") or form < 0 or data < 0:
        raise ValueError(f"{path} is not a WAV file")
    channels, rate = struct.unpack_from("<HI", raw, form + 10)
    (bits,) = struct.unpack_from("<H", raw, form + 22)
    if bits != 16:
        raise ValueError(f"{path} is not a 16 bit file")
    (size,) = struct.unpack_from("<I", raw, data + 4)
    # The size is filled in when the file is closed.
    sound = raw[data + 8 :][: size or None]
    whole = len(sound) - len(sound) % (2 * channels)
    return np.frombuffer(sound[:whole], dtype="<i2").reshape(-1, channels).mean(axis=1) / 32768, rate


def _likeness(pattern: npt.NDArray[np.float64], signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Correlation coefficient of the pattern with the signal at every place, each band freed of its mean.

    The mean of a band is the colour of a loudspeaker or a codec; what changes in time is the words.
    """
    frames = len(pattern)
    pattern = pattern - pattern.mean(axis=0)
    length = len(signal) + frames
    product = np.fft.irfft(
        np.fft.rfft(signal, length, axis=0) * np.conj(np.fft.rfft(pattern, length, axis=0)), length, axis=0
    )[: len(signal) - frames + 1].sum(axis=1)
    # The spread of the signal under the pattern, from running sums.
    sums = np.cumsum(np.pad(signal, ((1, 0), (0, 0))), axis=0)
    squares = np.cumsum(np.pad(signal**2, ((1, 0), (0, 0))), axis=0)
    square, total = squares[frames:] - squares[:-frames], sums[frames:] - sums[:-frames]
    spread = (square - total**2 / frames).sum(axis=1)
    # A place with less than 2 dB of movement has nothing to compare.
    enough = np.maximum(spread, 2.0**2 * pattern.size)
    likeness: npt.NDArray[np.float64] = product / np.sqrt(enough * (pattern**2).sum())
    return likeness
