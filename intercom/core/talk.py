"""What can happen within a conversation: hold, silence, a warning, a transfer, a second resident.

Rule: pure functions over `Talking`. Whether the conversation goes on is decided in `station`.
"""

from collections.abc import Callable
from dataclasses import replace

from intercom.core.access import caller_of
from intercom.core.actions import Action, HangUp, Mix, RecordCall
from intercom.core.policy import Mode, Policy
from intercom.core.ringing import Outcome
from intercom.core.state import Move, Talking

MOST_OTHERS = 2
STRANDED_SECONDS = 2.0
"""Some telephones end the call when its transfer has failed; they do so at once."""
STOPPED = "no sound has come from the far side for {:.0f} s"
HELD = "held for {:.0f} s"
TIME_IS_UP = "the talk time is up"


def party(phase: Talking, call: int) -> Talking | None:
    """The party of the conversation that has this call."""
    return next((party for party in phase.parties if party.call == call), None)


def changed(phase: Talking, call: int, change: Callable[[Talking], Talking]) -> Talking:
    """The conversation with a change in the party that has this call, if any has."""
    if phase.call == call:
        return change(phase)
    return replace(
        phase, others=tuple(change(other) if other.call == call else other for other in phase.others)
    )


def held(phase: Talking, call: int, now: float, policy: Policy) -> Talking:
    """The far side holds the call. To hold it once more gives no more time."""

    def change(party: Talking) -> Talking:
        if party.held_until is not None:
            return party
        return replace(party, held_until=now + policy.hold_seconds)

    return changed(phase, call, change)


def resumed(phase: Talking, call: int, now: float, policy: Policy) -> Talking:
    """The far side is back, and has all the time to be heard again."""

    def change(party: Talking) -> Talking:
        quiet = None if party.quiet_until is None else now + policy.silence_seconds
        return replace(party, held_until=None, quiet_until=quiet)

    return changed(phase, call, change)


def sounded(phase: Talking, call: int, quiet_until: float | None) -> Talking:
    """Sound comes from the far side of a call, or has stopped."""
    return changed(phase, call, lambda party: replace(party, quiet_until=quiet_until))


def typed(phase: Talking, call: int, digits: str, until: float) -> Talking:
    """A party of the conversation has typed so far what it has, and until when that counts."""
    return changed(phase, call, lambda party: replace(party, digits=digits, digits_until=until))


def loss(party: Talking, policy: Policy) -> str:
    """Why the far side of a call counts as gone, for the record."""
    if party.held_until is not None:
        return HELD.format(policy.hold_seconds)
    return STOPPED.format(policy.silence_seconds)


def moved(
    move: Move,
    button: str | None,
    mode: Mode,
    now: float,
    until: float,
    wrong: int,
    policy: Policy,
) -> Talking:
    """Who has taken the place of another talks within the same limits, and as no more than he may himself.

    Args:
        move: the call that took the place.
        button: whose visit it is.
        mode: who heard whom before.
        now: monotonic time in seconds.
        until: when the conversation ends, whoever leads it.
        wrong: wrong codes so far.
        policy: says how somebody who may call is taken.
    """
    caller = caller_of(policy.callers, move.peer) if move.direction == "in" else None
    if mode is Mode.TALK and caller is not None:
        mode = caller.mode
    return Talking(
        move.call, move.direction, button, move.peer, since=now, until=until, wrong=wrong, mode=mode
    )


def stays(phase: Talking, now: float) -> Talking:
    """A transfer has failed: the visitor stays where he is, unless that telephone hangs up because of it."""
    return replace(phase, move=None, stranded_until=now + STRANDED_SECONDS)


def without(phase: Talking, call: int) -> Talking | None:
    """The conversation after one party has left; None if nobody is left.

    The next one stands in the place of the first: the visit goes on.
    """
    left = [party for party in phase.parties if party.call != call]
    if not left:
        return None
    first, *others = left
    return replace(
        first,
        button=phase.button,
        until=phase.until,
        warned=phase.warned,
        wrong=phase.wrong,
        others=tuple(others),
        joining=phase.joining,
    )


def mixed(phase: Talking) -> tuple[Action, ...]:
    """Have all parties hear each other, if there are several."""
    return (Mix(tuple(party.call for party in phase.parties)),) if phase.others else ()


def record(phase: Talking, talked: float, reason: str) -> RecordCall:
    """The record of a call that was talked on."""
    return RecordCall(phase.direction, phase.button, phase.peer, Outcome.ANSWERED, reason, talked)


def record_move(move: Move, button: str | None, outcome: Outcome, reason: str) -> RecordCall:
    """The record of a call that did not come to take another's place."""
    return RecordCall(move.direction, button, move.peer, outcome, reason, 0.0)


def dismissed(phase: Talking, now: float, reason: str) -> tuple[Action, ...]:
    """End all that hangs on a conversation beside its first call, and keep the records."""
    actions: list[Action] = []
    for other in phase.others:
        actions += [HangUp(other.call), record(other, now - other.since, reason)]
    for offer in phase.joining:
        actions += [
            HangUp(offer.call),
            RecordCall("in", None, offer.peer, Outcome.CANCELLED, reason, 0.0),
        ]
    if phase.move is not None:
        actions += [
            HangUp(phase.move.call),
            record_move(phase.move, phase.button, Outcome.CANCELLED, reason),
        ]
    return tuple(actions)
