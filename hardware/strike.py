"""An electric door strike that locks itself.

One rule: it is never energised longer than its limit, whatever becomes of the rest of the program. The
deadline that people set is kept by the application's core; this is the second line of defence, with a thread
of its own. Against a killed process no thread helps: that takes `dtparam=strict_gpiod` in the Pi's
config.txt, see boards/raspberry-pi.toml.
"""

import atexit
import logging
from collections import deque
from collections.abc import Callable
from threading import TIMEOUT_MAX, Condition, Lock, Thread
from time import monotonic

from gpiozero import DeviceClosed, Factory, OutputDevice

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.1
"""How soon locking is tried again when the pin could not be driven."""


class Strike:
    """A strike, or its relay, on a pin; locked from opening on, without a pulse.

    Every method may be called from any thread and none blocks, except `close`, which waits for the timer
    thread to end. The timer thread sleeps without waking while the strike is locked.

    Args:
        name: what `on_change` is told, such as "front".
        pin: BCM number.
        limit_seconds: the longest time the strike is energised without a break.
        pin_factory: where the pin comes from.
        active_high: False for a relay board that energises on a low pin.
        on_change: called as `on_change(name, released)` after each change, in order, on the thread that made
            the change or on one that reports at that moment. What it raises is logged.

    Raises:
        ValueError: `limit_seconds` is not above 0, or no limit.
        gpiozero.GPIOZeroError: the pin is taken or does not exist.
        lgpio.error: another program holds the pin.
    """

    def __init__(
        self,
        name: str,
        pin: int,
        limit_seconds: float,
        pin_factory: Factory,
        active_high: bool = True,
        on_change: Callable[[str, bool], None] | None = None,
    ) -> None:
        if not 0 < limit_seconds <= TIMEOUT_MAX:
            raise ValueError(f"limit_seconds must be above 0 and finite, not {limit_seconds}")
        self.name = name
        self._limit = limit_seconds
        self._on_change = on_change
        self._changes: deque[bool] = deque()
        self._reporting = Lock()
        self._changed = Condition()
        self._energised_at = 0.0
        self._deadline: float | None = None
        self._closed = False
        self._device = OutputDevice(pin, active_high=active_high, pin_factory=pin_factory)
        # Started before the first release: a thread that cannot be started then would leave the door open.
        self._thread = Thread(target=self._keep_limit, name=f"strike {name}", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @property
    def released(self) -> bool:
        """Whether the strike is energised, so that the door can be pushed open."""
        return self._deadline is not None

    def release(self, seconds: float) -> None:
        """Energises now, and locks after `seconds` or at the limit, whichever is first.

        A release while released can prolong the time, never shorten it, and never past the limit counted from
        the moment the strike was energised.

        Raises:
            ValueError: `seconds` is not above 0.
            gpiozero.DeviceClosed: the strike is closed.
        """
        if not seconds > 0:
            raise ValueError(f"a door is released for more than 0 seconds, not {seconds}")
        with self._changed:
            if self._closed:
                raise DeviceClosed(f"door {self.name!r} is closed")
            now = monotonic()
            if self._deadline is None:
                self._device.on()
                self._energised_at = self._deadline = now
                self._changes.append(True)
            self._deadline = max(self._deadline, min(now + seconds, self._energised_at + self._limit))
            self._changed.notify()
        self._report()

    def lock(self) -> None:
        """Locks now; nothing happens when it is locked."""
        with self._changed:
            self._lock()
        self._report()

    def close(self) -> None:
        """Locks, ends the timer thread and gives the pin back. May be called twice."""
        atexit.unregister(self.close)
        with self._changed:
            self._closed = True
            self._changed.notify()
            self._lock()
        self._report()
        self._thread.join()
        self._device.close()

    def _lock(self) -> None:
        if self._deadline is not None:
            self._device.off()
            self._deadline = None
            self._changes.append(False)

    def _keep_limit(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (left := self._seconds_left()) != 0:
                    self._changed.wait(left)
                if self._closed:
                    return
                try:
                    self._lock()
                except Exception:
                    log.exception("door %r is still released: the pin cannot be driven", self.name)
                    self._changed.wait(RETRY_SECONDS)
            self._report()

    def _seconds_left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - monotonic())

    def _report(self) -> None:
        # Outside `_changed`, so that a slow listener cannot keep the strike from locking; one thread at a
        # time, so that the listener hears the changes in order.
        while self._changes and self._reporting.acquire(blocking=False):
            try:
                while self._changes:
                    released = self._changes.popleft()
                    if self._on_change is not None:
                        self._on_change(self.name, released)
            except Exception:
                log.exception("door %r: released=%s was not taken", self.name, released)
            finally:
                self._reporting.release()
