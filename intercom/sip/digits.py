"""Makes one digit of one key press, however often and however oddly the network repeats it."""

from collections import deque

REMEMBERED_PRESSES = 8
OTHER_WAY_SECONDS = 5.0
"""How long after a digit by one way (RTP, INFO) the other one counts for nothing."""


class DigitFilter:
    """Tells the first packet of a key press from its repetitions, for one call.

    An RTP event (RFC 4733 section 2.5.1.2) is sent in many packets that share one timestamp: a new timestamp
    is a new press, even of the same digit. That also reads phones whose packets carry neither a duration nor
    an end mark. Packets overtake each other, so the last few timestamps are kept. A SIP INFO is one press by
    itself.

    Some telephones send each press in both ways. The way that comes first counts, and the other one only
    after a silence, as when the call was handed to another telephone.
    """

    def __init__(self) -> None:
        """Start with no digit seen."""
        self._seen: deque[int] = deque(maxlen=REMEMBERED_PRESSES)
        self._by_info = False
        self._last = float("-inf")

    def ignore(self, timestamp: int | None) -> None:
        """Take no notice of a press, nor of what is still to come of it, as before the answer."""
        if timestamp is not None:
            self._seen.append(timestamp)

    def is_new(self, timestamp: int | None, now: float) -> bool:
        """Tell whether this is a press not seen before.

        Args:
            timestamp: of the RTP event; None for SIP INFO.
            now: monotonic seconds.
        """
        by_info = timestamp is None
        if timestamp is not None:
            if timestamp in self._seen:
                return False
            self._seen.append(timestamp)
        if by_info is not self._by_info and now - self._last < OTHER_WAY_SECONDS:
            return False
        self._by_info, self._last = by_info, now
        return True
