"""Makes one digit of one key press, however often and however oddly the network repeats it."""

from collections import deque

REMEMBERED_PRESSES = 8


class DigitFilter:
    """Tells the first packet of a key press from its repetitions, for one call.

    An RTP event (RFC 4733 section 2.5.1.2) is sent in many packets that share one timestamp: a new timestamp
    is a new press, even of the same digit. That also reads phones whose packets carry neither a duration nor
    an end mark. Packets overtake each other, so the last few timestamps are kept. A SIP INFO is one press by
    itself.
    """

    def __init__(self) -> None:
        """Start with no digit seen."""
        self._seen: deque[int] = deque(maxlen=REMEMBERED_PRESSES)

    def is_new(self, timestamp: int | None) -> bool:
        """Tell whether this is a press not seen before; `timestamp` is None for SIP INFO."""
        if timestamp is None:
            return True
        if timestamp in self._seen:
            return False
        self._seen.append(timestamp)
        return True
