"""How a list of addresses is rung, and how a call ended, in the words of the person at the door."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum

from intercom.core.policy import Target

MOST_HOPS = 10
USE_PROXY = 305


class Outcome(StrEnum):
    """The distinct ends of a call; each has its own lamp pattern and tone.

    `REDIRECTED` is the end of a call only, never of a press: another one took its place.
    """

    ANSWERED = "answered"
    CANCELLED = "cancelled"
    REDIRECTED = "redirected"
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


_TELLING = (
    Outcome.BUSY,
    Outcome.REJECTED,
    Outcome.NO_ANSWER,
    Outcome.UNREACHABLE,
    Outcome.NOT_FOUND,
    Outcome.FAILED,
)
"""The ends of calls that nobody answered, what tells a visitor most first: somebody is there, nobody came,
no telephone is there, and last what only the installer can mend."""


def most_telling(one: Outcome | None, other: Outcome) -> Outcome:
    """Of the ends of two calls of one press, the one that the visitor is told."""
    return other if one is None else min(one, other, key=_TELLING.index)


def first_together(targets: Sequence[Target]) -> int:
    """How many of these ring together, from the first on."""
    for count, target in enumerate(targets):
        if count and not target.together:
            return count
    return len(targets)


@dataclass(frozen=True, slots=True)
class Way:
    """Where a call is sent: to an address, and through a proxy that a 305 has named."""

    to: str
    via: str = ""


def ways_of(to: str, status: int, contacts: Sequence[str]) -> tuple[Way, ...]:
    """Where a redirection leads, the first to be tried first (RFC 3261 sections 8.1.3.4, 21.3).

    305 names proxies for the same address. 380 describes services in a body of no defined form: what it names
    as Contact is an address like any other.
    """
    if status == USE_PROXY:
        return tuple(Way(to, contact) for contact in contacts)
    return tuple(Way(contact) for contact in contacts)


def refusal_of(way: Way, permitted: AbstractSet[str], tried: AbstractSet[Way], hops: int) -> str | None:
    """Why a redirection is not followed, or None if it is.

    Args:
        way: where it leads.
        permitted: addresses that one may lead to: `sip:user@host`, or `sip:*@host` for a whole domain, in
            lower case.
        tried: where calls of this round were sent before.
        hops: how many redirections have led to it.
    """
    named = way.via or way.to
    user, host = _parts(named)
    domain = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    if permitted.isdisjoint({f"sip:{user.lower()}@{domain}", f"sip:*@{domain}"}):
        return f"{named} is not in [redirect] permit"
    if plain(way) in tried:
        return f"{named} was tried before"
    if hops > MOST_HOPS:
        return f"{named} would be more than {MOST_HOPS} redirections"
    return None


def plain(way: Way) -> Way:
    """A way as it is compared: without parameters, and however its host is spelt."""
    return Way("@".join(_parts(way.to)), "@".join(_parts(way.via)))


def _parts(address: str) -> tuple[str, str]:
    """The user, "" if there is none, and the host with its port."""
    user, _, host = address.partition(":")[2].partition(";")[0].rpartition("@")
    return user, host.lower()
