"""Opens the factory that all pins of a board come from.

One rule: the factory is made here and handed on. gpiozero's global default is never created, because it would
choose by the environment and fall back to drivers that fail on current kernels.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from gpiozero import Factory

from hardware.board import BoardDescription


class PinsUnavailable(OSError):
    """The pins of this board cannot be reached; the text says why, in one line."""


def open_pin_factory(description: BoardDescription, dev: Path = Path("/dev")) -> Factory:
    """Opens the pins of a board; the caller closes the factory after everything that uses it.

    To be called before other threads start: importing lgpio changes the working directory for a moment.

    Args:
        description: which board.
        dev: where the GPIO chips are.

    Raises:
        PinsUnavailable: no GPIO chip, no permission, no lgpio, not a Pi, or GPIOZERO_PIN_FACTORY asks for
            RPi.GPIO.
    """
    asked = os.environ.get("GPIOZERO_PIN_FACTORY", "")
    if asked.replace(".", "").lower().startswith("rpigpio"):
        raise PinsUnavailable(f"GPIOZERO_PIN_FACTORY={asked}: RPi.GPIO fails on current kernels; unset it")
    if description.gpio == "mock":
        from hardware.simulator import SimulatedPins

        return SimulatedPins()
    if not any(dev.glob("gpiochip*")):
        raise PinsUnavailable(f"board {description.name!r} needs {dev}/gpiochip*; this computer has none")
    try:
        with _scratch_directory():
            from hardware.kernel import KernelPins
        return KernelPins()
    except ImportError as error:
        raise PinsUnavailable(f"board {description.name!r} needs the package lgpio: {error}") from error
    except Exception as error:  # lgpio.error has no base class of its own
        raise PinsUnavailable(f"the pins of board {description.name!r} cannot be opened: {error}") from error


@contextmanager
def _scratch_directory() -> Iterator[None]:
    """A directory that can be written for the import of lgpio, and the old working directory afterwards.

    On import lgpio makes a FIFO in `$LG_WD` or else in the working directory, which is `/` in a service, and
    changes into `$LG_WD` (gpiozero #1106). Once both ends are open the FIFO needs no name.
    """
    before = Path.cwd()
    with TemporaryDirectory(prefix="lgpio-", dir=os.environ.get("RUNTIME_DIRECTORY")) as scratch:
        os.environ["LG_WD"] = scratch
        try:
            yield
        finally:
            del os.environ["LG_WD"]
            os.chdir(before)
