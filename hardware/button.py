"""A push button that reports every raw edge.

One rule: nothing is filtered here. gpiozero's `bounce_time` swallows the next short press after a bounce
(gpiozero #1039), so the settle time lives in the application's pure core, where it is tested.
"""

import logging
from collections.abc import Callable
from threading import Lock

from gpiozero import DigitalInputDevice, Factory

log = logging.getLogger(__name__)


class Button:
    """A contact between a pin and ground, with the pin's own pull-up: pressed is low.

    Args:
        name: what `on_edge` is told, such as "bell".
        pin: BCM number.
        on_edge: called as `on_edge(name, pressed)` on gpiozero's thread and once, on the caller's thread,
            when the button is already held at opening. Must not block. What it raises is logged and goes
            no further: an exception would end lgpio's one thread, and with it every button.
        pin_factory: where the pin comes from.

    Raises:
        gpiozero.GPIOZeroError: the pin is taken or does not exist.
        lgpio.error: another program holds the pin.
    """

    def __init__(
        self, name: str, pin: int, on_edge: Callable[[str, bool], None], pin_factory: Factory
    ) -> None:
        self.name = name
        self._on_edge = on_edge
        self._reported = False
        self._reporting = Lock()
        self._device = DigitalInputDevice(pin, pull_up=True, pin_factory=pin_factory)
        self._device.when_activated = self._went_down
        self._device.when_deactivated = self._went_up
        if self.is_pressed:
            self._went_down()

    @property
    def is_pressed(self) -> bool:
        """The level of the pin now, read from the hardware; it may be ahead of the reported edges."""
        return bool(self._device.value)

    def close(self) -> None:
        """Gives the pin back; no edge is reported afterwards. May be called twice."""
        self._device.close()

    def _went_down(self) -> None:
        self._report(True)

    def _went_up(self) -> None:
        self._report(False)

    def _report(self, pressed: bool) -> None:
        # The lock and the comparison make one edge of a press that falls into the moment of opening.
        with self._reporting:
            if pressed == self._reported:
                return
            self._reported = pressed
            try:
                self._on_edge(self.name, pressed)
            except Exception:
                log.exception("button %r: the edge pressed=%s was not taken", self.name, pressed)
