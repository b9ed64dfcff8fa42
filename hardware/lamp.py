"""A lamp that speaks a small fixed language of patterns.

One rule: a person in the street must tell any two patterns apart, so they are all defined here, side by side.
"""

from collections.abc import Mapping
from itertools import cycle
from math import inf
from threading import Condition, Thread

from gpiozero import Factory, OutputDevice


def _blinks(count: int) -> tuple[float, ...]:
    """That many blinks to count, then a pause."""
    return (0.2, 0.3) * (count - 1) + (0.2, 1.5)


PATTERNS: Mapping[str, tuple[float, ...]] = {
    "dark": (),
    "ready": (inf,),
    "calling": (0.1, 0.1),
    "ringing": (0.5, 0.5),
    "talking": (2.8, 0.2),
    "announcement": (1.5, 1.5),
    "door_open": (0.9, 0.2, 0.2, 0.2),
    "fault": (0.1, 1.9),
    "busy": _blinks(2),
    "rejected": _blinks(3),
    "not_found": _blinks(4),
    "no_answer": _blinks(5),
    "unreachable": _blinks(6),
    "failed": _blinks(7),
}
"""Seconds on, off, on, off …, from the start again at the end. Empty is dark; on for ever is steady."""


class Lamp:
    """A lamp on a pin, lit when the pin is high; dark from opening on.

    One thread drives the blinking. It sleeps without waking while the lamp is steady. Every method may be
    called from any thread.

    Args:
        name: for people and the status.
        pin: BCM number.
        pin_factory: where the pin comes from.

    Raises:
        gpiozero.GPIOZeroError: the pin is taken or does not exist.
        lgpio.error: another program holds the pin.
    """

    def __init__(self, name: str, pin: int, pin_factory: Factory) -> None:
        self.name = name
        self._pattern = "dark"
        self._turn = 0
        self._closed = False
        self._shown = Condition()
        self._device = OutputDevice(pin, pin_factory=pin_factory)
        self._thread = Thread(target=self._blink, name=f"lamp {name}", daemon=True)
        self._thread.start()

    @property
    def pattern(self) -> str:
        """The name of the pattern that is shown."""
        return self._pattern

    @property
    def lit(self) -> bool:
        """Whether the lamp gives light at this moment."""
        return bool(self._device.value)

    def show(self, pattern: str) -> None:
        """Starts a pattern at its beginning, at once; the same pattern again changes nothing. Never blocks.

        Raises:
            KeyError: no such pattern in `PATTERNS`.
            gpiozero.DeviceClosed: the lamp is closed.
        """
        steps = PATTERNS[pattern]
        with self._shown:
            if pattern == self._pattern:
                return
            self._device.value = bool(steps)
            self._pattern = pattern
            self._turn += 1
            self._shown.notify()

    def close(self) -> None:
        """Dark, the thread ended, the pin given back. May be called twice."""
        with self._shown:
            self._closed = True
            self._turn += 1
            self._shown.notify()
        self._thread.join()
        self._device.close()

    def _blink(self) -> None:
        with self._shown:
            while not self._closed:
                turn, steps = self._turn, PATTERNS[self._pattern]

                def turned(turn: int = turn) -> bool:
                    return self._turn != turn

                if len(steps) < 2:
                    self._shown.wait_for(turned)
                    continue
                for lit, seconds in zip(cycle((True, False)), cycle(steps), strict=False):
                    self._device.value = lit
                    if self._shown.wait_for(turned, seconds):
                        break
            self._device.value = False
