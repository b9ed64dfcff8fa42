"""How a call ended, in the words of the person at the door."""

from enum import StrEnum


class Outcome(StrEnum):
    """The distinct ends of a call; each has its own lamp pattern and tone."""

    ANSWERED = "answered"
    CANCELLED = "cancelled"
    BUSY = "busy"
    REJECTED = "rejected"
    NOT_FOUND = "not_found"
    NO_ANSWER = "no_answer"
    UNREACHABLE = "unreachable"
    FAILED = "failed"


_OUTCOMES = {
    486: Outcome.BUSY,
    600: Outcome.BUSY,
    403: Outcome.REJECTED,
    433: Outcome.REJECTED,
    603: Outcome.REJECTED,
    607: Outcome.REJECTED,
    404: Outcome.NOT_FOUND,
    410: Outcome.NOT_FOUND,
    484: Outcome.NOT_FOUND,
    485: Outcome.NOT_FOUND,
    604: Outcome.NOT_FOUND,
    408: Outcome.NO_ANSWER,
    480: Outcome.NO_ANSWER,
    487: Outcome.NO_ANSWER,
    430: Outcome.UNREACHABLE,
    502: Outcome.UNREACHABLE,
    503: Outcome.UNREACHABLE,
    504: Outcome.UNREACHABLE,
}


def outcome_of(status: int, *, rang: bool) -> Outcome:
    """Name the end of a call that nobody answered, from its final SIP status (RFC 3261 section 21.4 to 21.6).

    Args:
        status: the final status; below 200 or unknown codes count as failures.
        rang: whether a 180 or 183 came before. A time-out or 480 without any ringing means that no
            phone was reached at all; with ringing, that nobody came.
    """
    outcome = _OUTCOMES.get(status, Outcome.FAILED)
    if outcome is Outcome.NO_ANSWER and not rang:
        return Outcome.UNREACHABLE
    return outcome
