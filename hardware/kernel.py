"""The pins of a real Raspberry Pi, through the kernel's GPIO character device.

One rule: an output starts at the level it is asked for. gpiozero's lgpio pin goes low first, which energises
an active-low relay board for a moment.
"""

import lgpio
from gpiozero.pins.lgpio import LGPIOFactory, LGPIOPin


class KernelPin(LGPIOPin):  # type: ignore[misc]  # gpiozero has no types
    """A line of the character device."""

    def output_with_state(self, state: bool) -> None:
        """Claims the line as an output and sets its level in one request to the kernel."""
        lgpio.gpio_claim_output(self.factory._handle, self._number, int(state))


class KernelPins(LGPIOFactory):  # type: ignore[misc]  # gpiozero has no types
    """The pin factory of a real board.

    Raises:
        lgpio.error: the GPIO chip cannot be opened.
        gpiozero.PinUnknownPi: this computer is not a Raspberry Pi.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pin_class = KernelPin
