"""The board without a Pi: pins that people and tests can press and watch.

One rule: it behaves like the wiring, not like a test double. A button held down stays low when it is opened,
whatever pull-up is set.
"""

from collections.abc import Callable
from itertools import islice
from threading import Event, Thread
from time import monotonic
from typing import Any

from gpiozero.pins.mock import MockFactory, MockPin

Watcher = Callable[[bool, float], None]

RASPBERRY_PI_4B = "c03111"


class SimulatedPin(MockPin):  # type: ignore[misc]  # gpiozero has no types
    """A pin with a contact to ground outside and people who look at it."""

    def __init__(self, factory: "SimulatedPins", info: Any) -> None:
        self.held = False
        self.watchers: list[Watcher] = []
        super().__init__(factory, info)

    def drive_high(self) -> None:
        """Pulls the pin up, which does nothing while the contact to ground is closed."""
        if not self.held:
            super().drive_high()

    def _change_state(self, value: bool) -> bool:
        changed = bool(super()._change_state(value))
        if changed:
            for watcher in self.watchers:
                watcher(bool(value), monotonic())
        return changed


class SimulatedPins(MockFactory):  # type: ignore[misc]  # gpiozero has no types
    """A pin factory for every driver here, with the verbs of the world outside. Pins are BCM numbers.

    Edges are reported on the thread that causes them: the caller's, or for `push` and `bounce` one that ends
    with the movement or with `close`.
    """

    def __init__(self) -> None:
        super().__init__(revision=RASPBERRY_PI_4B, pin_class=SimulatedPin)
        self._closing = Event()
        self._movements: list[Thread] = []

    def press(self, pin: int) -> None:
        """Closes the contact to ground and holds it, also before the pin is opened.

        Raises:
            ValueError: the pin is an output, or there is no such pin.
        """
        self._contact(pin, True)

    def release(self, pin: int) -> None:
        """Opens the contact.

        Raises:
            ValueError: the pin is an output, or there is no such pin.
        """
        self._contact(pin, False)

    def push(self, pin: int, seconds: float) -> None:
        """Presses now and releases after `seconds`, without blocking."""
        self._move(pin, [True, False], seconds)

    def bounce(self, pin: int, edges: int, seconds: float) -> None:
        """Changes the contact `edges` times over `seconds`, the first time now, without blocking."""
        held = self.pin(pin).held
        self._move(pin, [held ^ (edge % 2 == 0) for edge in range(edges)], seconds / max(1, edges - 1))

    def watch(self, pin: int, callback: Watcher) -> None:
        """Calls `callback(level, monotonic_time)` at each change, on the thread that changes the pin."""
        self.pin(pin).watchers.append(callback)

    def close(self) -> None:
        """Ends every movement, then closes the pins."""
        self._closing.set()
        for movement in self._movements:
            movement.join()
        super().close()

    def _contact(self, number: int, closed: bool) -> None:
        pin = self.pin(number)
        if pin.function != "input":
            raise ValueError(f"pin {number} is an output: nobody can press it")
        pin.held = closed
        if closed:
            pin.drive_low()
        else:
            pin.drive_high()

    def _move(self, pin: int, contacts: list[bool], gap: float) -> None:
        def rest() -> None:
            for closed in islice(contacts, 1, None):
                if self._closing.wait(gap):
                    return
                self._contact(pin, closed)

        self._contact(pin, contacts[0])
        self._movements = [movement for movement in self._movements if movement.is_alive()]
        self._movements.append(Thread(target=rest, name=f"pin {pin}", daemon=True))
        self._movements[-1].start()
