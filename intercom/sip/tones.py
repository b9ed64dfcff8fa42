"""The tones at the door as data: which frequencies, for how long, and whether they repeat.

Cadences follow the usual European call progress tones (ITU-T E.180); the station's own signals are short
and rise when something begins, fall when it fails.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from intercom.core.guide import Tone


@dataclass(frozen=True, slots=True)
class Beep:
    """One element: a frequency in hertz, sounding `on` and then silent `off` milliseconds."""

    hertz: int
    on: int
    off: int


@dataclass(frozen=True, slots=True)
class Cadence:
    """A row of beeps, played once or again and again."""

    beeps: tuple[Beep, ...]
    repeats: bool = False

    @property
    def seconds(self) -> float:
        """How long it lasts when played once."""
        return sum(beep.on + beep.off for beep in self.beeps) / 1000


PROMPT = Cadence((Beep(1400, 120, 120), Beep(1400, 120, 1640)), repeats=True)
"""What somebody hears who has answered, until he presses a key."""

CADENCES: Mapping[Tone, Cadence] = {
    Tone.HEARD: Cadence((Beep(880, 90, 20), Beep(1175, 140, 50))),
    Tone.RINGBACK: Cadence((Beep(425, 1000, 4000),), repeats=True),
    Tone.HOLD: Cadence((Beep(425, 150, 2850),), repeats=True),
    Tone.WARNING: Cadence((Beep(1000, 150, 150), Beep(1000, 150, 50))),
    Tone.DOORBELL: Cadence((Beep(660, 400, 50), Beep(528, 600, 2000)), repeats=True),
    Tone.DOOR_OPEN: Cadence((Beep(1047, 120, 40), Beep(1319, 120, 40), Beep(1568, 200, 50))),
    Tone.END: Cadence((Beep(425, 180, 120), Beep(350, 250, 50))),
    Tone.BUSY: Cadence((Beep(425, 480, 480),), repeats=True),
    Tone.REJECTED: Cadence((Beep(425, 250, 250),), repeats=True),
    Tone.NOT_FOUND: Cadence((Beep(950, 330, 20), Beep(1400, 330, 20), Beep(1800, 330, 1000)), repeats=True),
    Tone.NO_ANSWER: Cadence((Beep(425, 700, 100), Beep(350, 900, 50))),
    Tone.UNREACHABLE: Cadence((Beep(425, 120, 120), Beep(425, 120, 120), Beep(350, 400, 400)), repeats=True),
    Tone.FAILED: Cadence((Beep(300, 200, 100), Beep(250, 500, 50))),
}
