"""Every rule that changes the state of the station.

`step` is the only function that decides anything about calls or the door. An event that has no meaning
now (a late answer, a repeated press, an unknown number) changes nothing and raises nothing: a door panel
is pressed at all times, and a network repeats itself.
"""

from dataclasses import replace
from typing import assert_never

from intercom.core.access import LONGEST_CODE, caller_of, door_for, written_code
from intercom.core.actions import (
    Action,
    Alert,
    Answer,
    Dial,
    HangUp,
    Lock,
    Play,
    RecordAccess,
    RecordCall,
    Refuse,
    Release,
    ShowLamp,
)
from intercom.core.events import (
    ButtonDown,
    ButtonPressed,
    ButtonUp,
    CallAnswered,
    CallEnded,
    CallOffered,
    CallRang,
    CallRequested,
    DigitReceived,
    Event,
    HangUpRequested,
    HealthChanged,
    MessageReceived,
    OpenRequested,
    Stopped,
    StrikeMoved,
    TimePassed,
)
from intercom.core.guide import lamp_of, tone_of
from intercom.core.notices import messages, presence_of
from intercom.core.policy import Policy, Target
from intercom.core.ringing import Outcome, outcome_of
from intercom.core.state import (
    Calling,
    Concluded,
    Contact,
    Ending,
    Idle,
    Off,
    Offered,
    State,
    Talking,
    contact_deadline,
    next_deadline,
)

Result = tuple[State, tuple[Action, ...]]

BUSY_HERE = 486
FORBIDDEN = 403
MOST_WRONG_CODES = 5
DEAF_SECONDS = 30.0
LONGEST_DEAF_SECONDS = 900.0
TEMPORARILY_UNAVAILABLE = 480


def step(state: State, event: Event, now: float, policy: Policy) -> Result:
    """Turn an event into the next state and the actions that carry it out, in order.

    Deadlines that are due are met first, so no flood of events can hold a door open; lamp and tone
    follow at the end, whatever changed them.

    Args:
        state: what the station does now.
        event: what has happened.
        now: monotonic time in seconds, never less than at the call before.
        policy: the owner's rules.
    """
    due, actions = _expire(state, now, policy)
    after, more = _handle(due, event, now, policy)
    actions += more + messages(due, after, more, policy)
    after, settled = _expire(after, now, policy)
    return after, actions + settled + _guide(state, after, policy)


def _guide(before: State, after: State, policy: Policy) -> tuple[Action, ...]:
    lamp, tone, presence = lamp_of(after), tone_of(after), presence_of(after)
    return (
        *((ShowLamp(lamp),) if lamp is not lamp_of(before) else ()),
        *((Play(tone),) if tone is not tone_of(before) else ()),
        *((presence,) if policy.publishes and presence != presence_of(before) else ()),
    )


def _handle(state: State, event: Event, now: float, policy: Policy) -> Result:
    if isinstance(state.phase, Off):
        return state, (Refuse(event.call, TEMPORARILY_UNAVAILABLE),) if isinstance(event, CallOffered) else ()
    match event:
        case TimePassed():
            return state, ()
        case ButtonDown(button):
            return _contact_down(state, button, now), ()
        case ButtonUp(button):
            return _contact_up(state, button, now), ()
        case ButtonPressed(button):
            return _press(state, button, now, policy)
        case CallRequested(to):
            if not isinstance(state.phase, Idle | Concluded):
                return state, ()
            return _dial(state, None, (Target(to, policy.ring_seconds),), now)
        case HangUpRequested():
            return _hang_up(state, now, policy)
        case OpenRequested(door):
            return _open(state, door, "operator", "", now, policy)
        case CallOffered():
            return _offer(state, event, now, policy)
        case CallRang(call, early_media):
            return _rang(state, call, early_media), ()
        case CallAnswered(call):
            return _answered(state, call, now, policy), ()
        case CallEnded(call, status, reason):
            return _ended(state, call, status, reason, now, policy)
        case DigitReceived(call, digit):
            return _digit(state, call, digit, now, policy)
        case MessageReceived(peer, text, secure):
            return _message(state, peer, text, secure, now, policy)
        case StrikeMoved():
            return state, ()  # told for those who watch; the deadline in the state decides
        case HealthChanged(part, fault):
            others = {name: why for name, why in state.faults.items() if name != part}
            return replace(state, faults=others if fault is None else others | {part: fault}), ()
        case Stopped():
            return _stop(state, now)
        case _:
            assert_never(event)


# Time


def _expire(state: State, now: float, policy: Policy) -> Result:
    """Meet every deadline that is due, the earliest first."""
    actions: tuple[Action, ...] = ()
    while (deadline := next_deadline(state, policy.settle_seconds)) is not None and deadline <= now:
        before = state
        state, more = _meet(before, deadline, now, policy)
        actions += more + messages(before, state, more, policy)
    return state, actions


def _meet(state: State, deadline: float, now: float, policy: Policy) -> Result:
    for door, until in state.released.items():
        if until == deadline:
            others = {name: until for name, until in state.released.items() if name != door}
            return replace(state, released=others), (Lock(door),)
    for button, contact in state.contacts.items():
        if contact_deadline(contact, policy.settle_seconds) == deadline:
            return _settle(state, button, contact, now, policy)
    match state.phase:
        case Calling() as phase:
            return _give_up(state, phase, Outcome.NO_ANSWER, phase.button, phase.targets[1:], now, policy)
        case Offered() as phase:
            return _give_up(state, phase, Outcome.NO_ANSWER, None, (), now, policy)
        case Talking() as phase:
            return _give_up(state, phase, Outcome.ANSWERED, None, (), now, policy)
        case Ending() as phase:
            return _over(state, phase, "no word from the SIP side", now, policy)
        case _:
            return replace(state, phase=Idle()), ()


# Buttons


def _contact_down(state: State, button: str, now: float) -> State:
    contact = state.contacts.get(button)
    if contact is not None and contact.down:
        return state
    changed = Contact(True, now) if contact is None else replace(contact, down=True, since=now)
    return replace(state, contacts={**state.contacts, button: changed})


def _contact_up(state: State, button: str, now: float) -> State:
    contact = state.contacts.get(button)
    if contact is None or not contact.down:
        return state
    down_for = contact.down_for + (now - contact.since)
    changed = replace(contact, down=False, since=now, down_for=down_for)
    return replace(state, contacts={**state.contacts, button: changed})


def _settle(state: State, button: str, contact: Contact, now: float, policy: Policy) -> Result:
    """A contact has been down long enough in all, bounces left out, or quietly up for as long."""
    if not contact.down:
        others = {name: other for name, other in state.contacts.items() if name != button}
        return replace(state, contacts=others), ()
    counted = {**state.contacts, button: replace(contact, counted=True)}
    return _press(replace(state, contacts=counted), button, now, policy)


def _press(state: State, button: str, now: float, policy: Policy) -> Result:
    targets = policy.buttons.get(button)
    if targets is None:
        return state, ()
    repeated = button == state.last_button and now - state.last_press < policy.repeat_seconds
    state = replace(state, last_press=now, last_button=button)
    match state.phase:
        case Idle():
            return _dial(state, button, targets, now)
        case Offered(accepted=False) as phase:
            return replace(state, phase=replace(phase, accepted=True)), (Answer(phase.call, phase.mode),)
        case _ if repeated:
            return state, ()
        case Concluded():
            return _dial(state, button, targets, now)
        case Calling(button=calling) as phase if calling != button:
            return _give_up(state, phase, Outcome.CANCELLED, button, targets, now, policy)
        case Talking(button=talking, since=since) if talking not in {None, button} or (
            now - since < policy.repeat_seconds
        ):
            return state, ()  # somebody else's conversation, or a finger that came just after the answer
        case Calling() | Talking():
            return _hang_up(state, now, policy)
        case Ending() as phase:
            return replace(state, phase=replace(phase, button=button, targets=targets)), ()
        case _:
            return state, ()


# Calls


def _dial(state: State, button: str | None, targets: tuple[Target, ...], now: float) -> Result:
    call = state.calls + 1
    phase = Calling(call, button, targets, until=now + targets[0].seconds)
    return replace(state, phase=phase, calls=call), (Dial(call, phase.peer),)


def _rang(state: State, call: int, early_media: bool) -> State:
    match state.phase:
        case Calling(call=current) as phase if current == call:
            return replace(
                state, phase=replace(phase, rang=True, early_media=phase.early_media or early_media)
            )
        case _:
            return state


def _answered(state: State, call: int, now: float, policy: Policy) -> State:
    until = now + policy.talk_seconds
    match state.phase:
        case Calling(call=current) as calling if current == call:
            phase = Talking(call, "out", calling.button, calling.peer, since=now, until=until)
            return replace(state, phase=phase)
        case Offered(call=current, accepted=True) as offered if current == call:
            phase = Talking(call, "in", None, offered.peer, since=now, until=until)
            return replace(state, phase=replace(phase, mode=offered.mode, diverted_by=offered.diverted_by))
        case _:
            return state


def _offer(state: State, offer: CallOffered, now: float, policy: Policy) -> Result:
    caller = caller_of(policy.callers, offer.peer)
    if caller is None:
        return state, (Refuse(offer.call, FORBIDDEN),)
    if not isinstance(state.phase, Idle | Concluded):
        return state, (Refuse(offer.call, BUSY_HERE),)
    phase = Offered(
        offer.call,
        offer.peer,
        until=now + policy.ring_seconds,
        accepted=caller.automatic,
        mode=caller.mode,
        diverted_by=offer.diverted_by,
    )
    answer = Answer(offer.call, caller.mode) if caller.automatic else Alert(offer.call)
    return replace(state, phase=phase), (answer,)


def _hang_up(state: State, now: float, policy: Policy) -> Result:
    match state.phase:
        case Talking() as phase:
            return _give_up(state, phase, Outcome.ANSWERED, None, (), now, policy)
        case (Calling() | Offered()) as phase:
            return _give_up(state, phase, Outcome.CANCELLED, None, (), now, policy)
        case Ending() as phase:
            return replace(state, phase=replace(phase, button=None, targets=())), ()
        case _:
            return state, ()


def _give_up(
    state: State,
    phase: Calling | Offered | Talking,
    outcome: Outcome,
    button: str | None,
    targets: tuple[Target, ...],
    now: float,
    policy: Policy,
) -> Result:
    """End a call from our side; `targets`, if any, are rung once it is over."""
    talked = now - phase.since if isinstance(phase, Talking) else 0.0
    until = now + policy.hang_up_seconds
    return replace(state, phase=Ending(phase, outcome, button, targets, talked, until)), (HangUp(phase.call),)


def _ended(state: State, call: int, status: int, reason: str, now: float, policy: Policy) -> Result:
    match state.phase:
        case Ending() as ending if ending.call == call:
            return _over(state, ending, reason, now, policy)
        case Calling(call=current) as calling if current == call:
            outcome = outcome_of(status, rang=calling.rang)
            ending = Ending(calling, outcome, calling.button, calling.targets[1:], 0.0, now)
            return _over(state, ending, reason, now, policy)
        case Talking(call=current) as talking if current == call:
            ending = Ending(talking, Outcome.ANSWERED, None, (), now - talking.since, now)
            return _over(state, ending, reason, now, policy)
        case Offered(call=current) as offered if current == call:
            return _over(state, Ending(offered, Outcome.CANCELLED, None, (), 0.0, now), reason, now, policy)
        case _:
            return state, ()


def _over(state: State, ending: Ending, reason: str, now: float, policy: Policy) -> Result:
    """A call is over: keep the record, then ring the next target or show how it went."""
    record = _record(ending, reason)
    if ending.targets:
        state, actions = _dial(state, ending.button, ending.targets, now)
        return state, (*actions, record)
    phase = Concluded(ending.outcome, until=now + policy.outcome_seconds)
    return replace(state, phase=phase), (record,)


def _record(ending: Ending, reason: str) -> RecordCall:
    ended = ending.ended
    if isinstance(ended, Talking):
        direction = ended.direction
    else:
        direction = "out" if isinstance(ended, Calling) else "in"
    button = None if isinstance(ended, Offered) else ended.button
    diverted_by = "" if isinstance(ended, Calling) else ended.diverted_by
    return RecordCall(direction, button, ended.peer, ending.outcome, reason, ending.talked, diverted_by)


# The door


def _digit(state: State, call: int, digit: str, now: float, policy: Policy) -> Result:
    match state.phase:
        case Talking(call=current) as phase if current == call:
            fresh = not phase.digits or now >= phase.digits_until
            digits = digit if fresh else (phase.digits + digit)[: LONGEST_CODE + 1]
            until = now + policy.code_seconds if fresh else phase.digits_until
            if digit != "#":
                return replace(state, phase=replace(phase, digits=digits, digits_until=until)), ()
            door = door_for(policy.doors, digits)
            if door is None:
                return _wrong_code(state, replace(phase, digits="", wrong=phase.wrong + 1), now, policy)
            state = replace(state, phase=replace(phase, digits="", wrong=0))
            return _open(state, door, "dtmf", phase.peer, now, policy)
        case _:
            return state, ()


def _wrong_code(state: State, phase: Talking, now: float, policy: Policy) -> Result:
    """Record a wrong code; after a few the call ends, so that nobody can try them all."""
    record = RecordAccess(None, "dtmf", phase.peer, False, "wrong code")
    if phase.wrong < MOST_WRONG_CODES:
        return replace(state, phase=phase), (record,)
    state, actions = _give_up(state, phase, Outcome.ANSWERED, None, (), now, policy)
    return state, (record, *actions)


def _message(state: State, peer: str, text: str, secure: bool, now: float, policy: Policy) -> Result:
    """Release a door by a code in a message, where the settings permit it for that door.

    What is no code changes nothing. After a few wrong ones no message is looked at for a while, so that
    nobody can try them all, and neither journal nor readers are flooded.
    """
    code = written_code(text)
    if code is None or now < state.deaf_until or caller_of(policy.callers, peer) is None:
        return state, ()
    if not any(door.by_message for door in policy.doors.values()):
        return state, ()
    door = door_for(policy.doors, code) if secure else None
    if door is not None and policy.doors[door].by_message:
        return _open(replace(state, wrong_messages=0), door, "message", peer, now, policy)
    wrong = state.wrong_messages + 1
    deaf = 0.0
    if wrong >= MOST_WRONG_CODES:
        deaf = min(DEAF_SECONDS * 2.0 ** min(wrong - MOST_WRONG_CODES, 10), LONGEST_DEAF_SECONDS)
    state = replace(state, wrong_messages=wrong, deaf_until=now + deaf)
    reason = "wrong code" if secure else "the message did not come over TLS"
    return state, (RecordAccess(None, "message", peer, False, reason),)


def _open(state: State, door: str, how: str, peer: str, now: float, policy: Policy) -> Result:
    rule = policy.doors.get(door)
    if rule is None:
        return state, (RecordAccess(door, how, peer, False, "no such door"),)
    fault = state.faults.get(f"door {door!r}") or state.faults.get("panel")
    if fault is not None:
        return state, (RecordAccess(door, how, peer, False, f"cannot be driven: {fault}"),)
    if door in state.released:
        return state, (RecordAccess(door, how, peer, False, "already released"),)
    released = {**state.released, door: now + rule.release_seconds}
    granted = RecordAccess(door, how, peer, True, "")
    return replace(state, released=released), (Release(door, rule.release_seconds), granted)


# The end


def _stop(state: State, now: float) -> Result:
    actions: list[Action] = [Lock(door) for door in state.released]
    match state.phase:
        case Calling() | Offered() as phase:
            ending = Ending(phase, Outcome.CANCELLED, None, (), 0.0, now)
            actions += [HangUp(phase.call), _record(ending, "stopped")]
        case Talking() as phase:
            ending = Ending(phase, Outcome.ANSWERED, None, (), now - phase.since, now)
            actions += [HangUp(phase.call), _record(ending, "stopped")]
        case Ending() as phase:
            actions.append(_record(phase, "stopped"))
        case _:
            pass
    off = State(phase=Off(), faults=state.faults, last_press=state.last_press, calls=state.calls)
    return off, tuple(actions)
