"""Makes one digit of one key press, however often and however oddly the network repeats it."""


class DigitFilter:
    """Tells the first packet of a key press from its repetitions, for one call.

    An RTP event (RFC 4733 section 2.5.1.2) is sent in many packets that share one timestamp: a new timestamp
    is a new press, even of the same digit. That also reads phones whose packets carry neither a duration nor
    an end mark. A SIP INFO is one press by itself.
    """

    def __init__(self) -> None:
        """Start with no digit seen."""
        self._last: int | None = None

    def is_new(self, timestamp: int | None) -> bool:
        """Tell whether this is a press not seen before; `timestamp` is None for SIP INFO."""
        if timestamp is None:
            return True
        new = timestamp != self._last
        self._last = timestamp
        return new
