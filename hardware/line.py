"""One output line of the Pi, from the kernel's GPIO character device itself, or a simulated one.

One rule: a line has its first level from the moment it is claimed, in one request to the kernel. It imports
almost nothing, because the guardian does: gpiozero and lgpio are twenty times the code, and a thread.

Source: linux/gpio.h, version 2 of the interface (Linux 5.10 and later).
"""

import errno
import fcntl
import os
import struct
import time

CHIPS = ("pinctrl-bcm2835", "pinctrl-bcm2711", "pinctrl-rp1")
"""The labels of the chip behind the 40-pin header: Pi 0 to 3, Pi 4, Pi 5."""

TRACE = "INTERCOM_LINES"
"""The variable that names the file to which simulated lines write."""

_GET_CHIP = 0x8044B401
_GET_LINE = 0xC250B407
_SET_VALUES = 0xC010B40F
_CHIP = struct.Struct("=32s32sI")
# Offset of the line, consumer, flags, how many attributes, the attribute (id, values, mask), how many lines,
# and the file that the kernel gives back.
_REQUEST = struct.Struct("=I252x 32s Q I20x I4xQQ 216x I24x i")
_VALUES = struct.Struct("=QQ")
_OUTPUT, _PULL_UP, _PULL_DOWN = 1 << 3, 1 << 8, 1 << 9
_OUTPUT_VALUES = 2
_WHO = b"intercom-guardian"


class KernelLine:
    """A line of the Pi's own chip, an output until `close`.

    The kernel gives it to nobody else meanwhile. Pulled to its first level too, so that with
    `dtparam=strict_gpiod` it stays there when this process is killed.

    Raises:
        OSError: there is no such chip or line, or another program has it; the text is the reason, as the
            rest of a sentence that begins with "pin 27".
    """

    def __init__(self, pin: int, level: bool, dev: str = "/dev") -> None:
        """Claim the line with the BCM number `pin` and drive it to `level`, at once."""
        flags = _OUTPUT | (_PULL_UP if level else _PULL_DOWN)
        request = bytearray(_REQUEST.pack(pin, _WHO, flags, 1, _OUTPUT_VALUES, level, 1, 1, 0))
        chip = _open_chip(dev)
        try:
            fcntl.ioctl(chip, _GET_LINE, request)
        except OSError as error:
            reason = _REASONS.get(error.errno or 0, f"cannot be used: {error.strerror}")
            raise OSError(error.errno, reason) from None
        finally:
            os.close(chip)
        self._line: int = _REQUEST.unpack(request)[-1]

    def set(self, level: bool) -> None:
        """Drive the line.

        Raises:
            OSError: the chip is gone.
        """
        fcntl.ioctl(self._line, _SET_VALUES, _VALUES.pack(level, 1))

    def close(self) -> None:
        """Give the line back to the kernel."""
        os.close(self._line)


class SimulatedLine:
    """A line of a board without a Pi. Each level goes to the file `$INTERCOM_LINES`, if that is set.

    A line of the file is `SECONDS PIN LEVEL`, the seconds monotonic; it ends up there in one piece.
    """

    def __init__(self, pin: int, level: bool) -> None:
        """Drive it to `level`."""
        self._pin = pin
        self.set(level)

    def set(self, level: bool) -> None:
        """Drive the line."""
        if file := os.environ.get(TRACE):
            trace = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.write(trace, f"{time.monotonic():.6f} {self._pin} {level:d}\n".encode())
            os.close(trace)

    def close(self) -> None:
        """Leave it as it is, as a Pi does."""


_REASONS = {
    errno.EBUSY: "is in use by another program",
    errno.EINVAL: "does not exist on this board",
}


def _open_chip(dev: str) -> int:
    for name in sorted(os.listdir(dev)):
        if not name.startswith("gpiochip"):
            continue
        try:
            chip = os.open(f"{dev}/{name}", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise OSError(error.errno, f"cannot be used: {dev}/{name}: {error.strerror}") from None
        try:
            told = bytearray(_CHIP.size)
            fcntl.ioctl(chip, _GET_CHIP, told)
            if _CHIP.unpack(told)[1].rstrip(b"\0").decode(errors="replace") in CHIPS:
                return chip
        except OSError:
            pass  # not a chip after all
        os.close(chip)
    raise OSError(errno.ENODEV, "cannot be used: this computer has no GPIO chip of a Raspberry Pi")
