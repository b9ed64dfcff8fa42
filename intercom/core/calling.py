"""A list of addresses is being rung: every rule of `Calling`, from its first call to a talk or its outcome.

Rule: nobody else is rung before the SIP side has said that those before are over, and who has answered first
is the only one who stays.
"""

from dataclasses import replace

from intercom.core.actions import Action, Dial, HangUp, RecordCall, RecordRing
from intercom.core.events import CallEnded
from intercom.core.policy import Plan, Policy
from intercom.core.ringing import (
    Outcome,
    Way,
    first_together,
    most_telling,
    outcome_of,
    plain,
    refusal_of,
    ways_of,
)
from intercom.core.state import Attempt, Calling, Concluded, Ending, State, Talking

Result = tuple[State, tuple[Action, ...]]

NO_KEY = "answered without a key"
SILENT = "no word from the SIP side"


def ring(state: State, button: str | None, plan: Plan, now: float) -> Result:
    """Begin to ring a list of addresses."""
    phase = Calling(button, plan, (), plan.targets, plan.rounds - 1, plan.last_resort, placed=0)
    return _ring_next(state, phase, now)


def _ring_next(state: State, phase: Calling, now: float) -> Result:
    """Ring those together that come next, in this round, the next one, or at last."""
    if not phase.to_come and phase.rounds:
        phase = replace(phase, to_come=phase.plan.targets, rounds=phase.rounds - 1, tried=frozenset())
    elif not phase.to_come and phase.last_resort:
        phase = replace(phase, to_come=(phase.last_resort,), last_resort=None)
    count = first_together(phase.to_come)
    group, phase = phase.to_come[:count], replace(phase, to_come=phase.to_come[count:])
    actions: tuple[Action, ...] = ()
    for target in group:
        state, phase, dial = _dial(state, phase, Attempt(0, Way(target.to), until=now + target.seconds))
        actions += dial
    return replace(state, phase=phase), actions


def _dial(state: State, phase: Calling, attempt: Attempt) -> tuple[State, Calling, tuple[Action, ...]]:
    """Place one more call of a ring."""
    call, way = state.calls + 1, attempt.way
    phase = replace(
        phase,
        attempts=(*phase.attempts, replace(attempt, call=call)),
        placed=phase.placed + 1,
        tried=phase.tried | {plain(way)},
    )
    return replace(state, calls=call), phase, (Dial(call, way.to, way.via),)


def attempt_of(attempts: tuple[Attempt, ...], call: int) -> Attempt | None:
    """The attempt that has this call."""
    return next((attempt for attempt in attempts if attempt.call == call), None)


def _changed(phase: Calling, changed: Attempt) -> Calling:
    """Put an attempt in the place of what it was before."""
    attempts = (changed if attempt.call == changed.call else attempt for attempt in phase.attempts)
    return replace(phase, attempts=tuple(attempts))


def without(phase: Calling, over: Attempt) -> Calling:
    """The ring after one attempt is over."""
    return replace(phase, attempts=tuple(each for each in phase.attempts if each.call != over.call))


def ring_enough(state: State, phase: Calling, deadline: float, now: float, policy: Policy) -> Result:
    """The time of one attempt is up: of its ringing, or of its hang-up."""
    attempt = next(attempt for attempt in phase.attempts if attempt.until == deadline)
    if attempt.given_up is not None:
        kept = record(phase, attempt, attempt.given_up, SILENT)
        state, actions = _ring_on(state, without(phase, attempt), now, policy)
        return state, (kept, *actions)
    outcome = Outcome.NO_ANSWER if attempt.rang or attempt.answered else Outcome.UNREACHABLE
    phase = _changed(phase, _left(attempt, outcome, now, policy))
    phase = replace(phase, outcome=most_telling(phase.outcome, outcome))
    state, actions = _ring_on(state, phase, now, policy)
    return state, (HangUp(attempt.call), *actions)


def _left(attempt: Attempt, outcome: Outcome, now: float, policy: Policy) -> Attempt:
    """An attempt that we hang up."""
    why = NO_KEY if attempt.answered and outcome is Outcome.NO_ANSWER else ""
    return replace(attempt, given_up=outcome, why=why, until=now + policy.hang_up_seconds)


def _ring_on(state: State, phase: Calling, now: float, policy: Policy) -> Result:
    """Go on after an attempt has come to nothing: wait for the others, ring the next, or show how it went.

    Nobody else is rung before the SIP side has said that those before are over.
    """
    if phase.live or (phase.attempts and phase.more):
        return replace(state, phase=phase), ()
    if phase.attempts:
        until = max(attempt.until for attempt in phase.attempts)
        ending = Ending(phase, phase.outcome or Outcome.FAILED, None, None, 0.0, until)
        return replace(state, phase=ending), ()
    if phase.more:
        return _ring_next(state, phase, now)
    return _conclude(state, phase, phase.outcome or Outcome.FAILED, now, policy)


def _conclude(state: State, phase: Calling, outcome: Outcome, now: float, policy: Policy) -> Result:
    """Show how a ring went that led to no talk."""
    concluded = Concluded(outcome, until=now + policy.outcome_seconds)
    return replace(state, phase=concluded), record_ring(phase, outcome)


def cancel(
    state: State, phase: Calling, button: str | None, plan: Plan | None, now: float, policy: Policy
) -> Result:
    """Hang up all that ring; `plan`, if any, is rung once they are over."""
    hang_ups = tuple(HangUp(attempt.call) for attempt in phase.live)
    for attempt in phase.live:
        phase = _changed(phase, _left(attempt, Outcome.CANCELLED, now, policy))
    until = now + policy.hang_up_seconds
    ending = Ending(phase, Outcome.CANCELLED, button, plan, 0.0, until)
    return replace(state, phase=ending), hang_ups


def _win(state: State, phase: Calling, winner: Attempt, now: float, policy: Policy) -> Result:
    """Somebody has answered who counts: all others are hung up at once, and what they say is not heard."""
    actions: list[Action] = [HangUp(other.call) for other in phase.live if other.call != winner.call]
    for other in without(phase, winner).attempts:
        outcome = other.given_up or Outcome.CANCELLED
        why = f"answered by {winner.way.to}"
        actions.append(record(phase, other, outcome, why))
    until = now + policy.talk_seconds
    talking = Talking(winner.call, "out", phase.button, winner.way.to, since=now, until=until)
    return replace(state, phase=talking), (*actions, *record_ring(phase, Outcome.ANSWERED))


def ended(
    state: State, phase: Calling, attempt: Attempt, news: CallEnded, now: float, policy: Policy
) -> Result:
    """An attempt is over: the next address of a redirection takes its place, if there was one."""
    if attempt.answered and attempt.given_up is None:
        attempt = _left(attempt, Outcome.NO_ANSWER, now, policy)
    new: tuple[Way, ...] = ()
    further: tuple[Way, ...] = ()
    if attempt.given_up is not None:
        outcome, reason = attempt.given_up, news.reason
    else:
        outcome = outcome_of(news.status, rang=attempt.rang)
        new, reason = _redirection(phase, attempt, news, policy)
        further = tuple(way for way in new + attempt.further if plain(way) not in phase.tried)
    kept = record(phase, attempt, Outcome.REDIRECTED if new else outcome, reason)
    phase = without(phase, attempt)
    if not new:
        phase = replace(phase, outcome=most_telling(phase.outcome, outcome))
    if further:
        hops = attempt.hops + bool(new)
        instead = Attempt(0, further[0], attempt.until, hops=hops, further=further[1:])
        state, phase, actions = _dial(state, phase, instead)
        return replace(state, phase=phase), (*actions, kept)
    state, actions = _ring_on(state, phase, now, policy)
    return state, (kept, *actions)


def _redirection(
    phase: Calling, attempt: Attempt, news: CallEnded, policy: Policy
) -> tuple[tuple[Way, ...], str]:
    """Where the end of an attempt leads, and the reason of its end with what was refused."""
    new, refusals = [], []
    for way in ways_of(attempt.way.to, news.status, news.contacts):
        refusal = refusal_of(way, policy.redirects, phase.tried, attempt.hops + 1)
        if refusal is None:
            new.append(way)
        else:
            refusals.append(refusal)
    named = [" then ".join(way.via or way.to for way in new)] if new else []
    return tuple(new), "; ".join([news.reason, *named, *refusals])


def record(phase: Calling, attempt: Attempt, outcome: Outcome, reason: str) -> RecordCall:
    """The record of one call of a ring that did not come to a talk."""
    return RecordCall("out", phase.button, attempt.way.to, outcome, attempt.why or reason, 0.0)


def record_ring(phase: Calling, outcome: Outcome) -> tuple[Action, ...]:
    """The record of a whole ring; that of its only call says as much."""
    return (RecordRing(phase.button, phase.placed, outcome),) if phase.placed > 1 else ()


def rang(phase: Calling, call: int, early_media: bool) -> Calling:
    """A telephone rings, or sends its own tone or voice."""
    attempt = attempt_of(phase.live, call)
    if attempt is None:
        return phase
    phase = _changed(phase, replace(attempt, rang=True))
    if early_media and call not in phase.early:
        phase = replace(phase, early=(*phase.early, call))
    return phase


def answered(state: State, phase: Calling, call: int, now: float, policy: Policy) -> Result:
    """Somebody has answered; where a key is wanted that does not count yet."""
    attempt = attempt_of(phase.live, call)
    if attempt is None or attempt.answered:
        return state, ()
    if not phase.plan.confirm:
        return _win(state, phase, attempt, now, policy)
    until = max(attempt.until, now + policy.key_seconds)
    waits = replace(attempt, rang=True, answered=True, until=until)
    return replace(state, phase=_changed(phase, waits)), ()


def keyed(state: State, phase: Calling, call: int, now: float, policy: Policy) -> Result:
    """Somebody has pressed a key, which is no part of a code: it confirms that he has answered."""
    attempt = attempt_of(phase.live, call)
    if attempt is None or not attempt.answered:
        return state, ()
    return _win(state, phase, attempt, now, policy)
