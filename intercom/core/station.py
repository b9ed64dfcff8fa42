"""Every rule that changes the state of the station.

`step` is the only function that decides anything about calls or the door. An event that has no meaning
now (a late answer, a repeated press, an unknown number) changes nothing and raises nothing: a door panel
is pressed at all times, and a network repeats itself.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from intercom.core import calling, talk
from intercom.core.access import LONGEST_CODE, caller_of, door_for, written_code
from intercom.core.actions import (
    Action,
    Alert,
    Answer,
    Connect,
    HangUp,
    Lock,
    Play,
    RecordAccess,
    RecordCall,
    RecordPress,
    Refuse,
    Release,
    ShowLamp,
    Warn,
)
from intercom.core.events import (
    ButtonDown,
    ButtonPressed,
    ButtonUp,
    CallAnswered,
    CallEnded,
    CallHeld,
    CallOffered,
    CallRang,
    CallReplaced,
    CallRequested,
    CallResumed,
    CallTransferred,
    DigitReceived,
    Event,
    HangUpRequested,
    HealthChanged,
    HoursChanged,
    MessageReceived,
    OpenRequested,
    SoundCame,
    SoundStopped,
    Stopped,
    StrikeMoved,
    TimePassed,
)
from intercom.core.guide import hearing_of, lamp_of, tone_of
from intercom.core.notices import messages, presence_of
from intercom.core.policy import Mode, Plan, Policy, Target
from intercom.core.ringing import Outcome, outcome_of
from intercom.core.state import (
    Calling,
    Concluded,
    Contact,
    Ending,
    Idle,
    Move,
    Moving,
    Off,
    Offered,
    Phase,
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
    was, hearings = hearing_of(before), hearing_of(after)
    return (
        *((ShowLamp(lamp),) if lamp is not lamp_of(before) else ()),
        *((Play(tone),) if tone is not tone_of(before) else ()),
        *(Connect(call, hearing) for call, hearing in hearings.items() if was.get(call) is not hearing),
        *((presence,) if policy.publishes and presence != presence_of(before) else ()),
    )


def _handle(state: State, event: Event, now: float, policy: Policy) -> Result:
    if isinstance(state.phase, Off):
        return state, _turn_away(event)
    match event:
        case TimePassed():
            return state, ()
        case ButtonDown(button, at):
            return _contact_down(state, button, now if at is None else at, now), ()
        case ButtonUp(button, at):
            return _contact_up(state, button, now if at is None else at, now, policy)
        case ButtonPressed(button):
            return _press(state, button, now, policy)
        case CallRequested(to):
            if not isinstance(state.phase, Idle | Concluded):
                return state, ()
            return calling.ring(state, None, Plan((Target(to, policy.ring_seconds),)), now)
        case HangUpRequested():
            return _hang_up(state, now, policy)
        case OpenRequested(door):
            return _open(state, door, "operator", "", now, policy)
        case CallOffered():
            return _offer(state, event, now, policy)
        case CallRang(call, early_media):
            return _rang(state, call, early_media), ()
        case CallAnswered(call):
            return _answered(state, call, now, policy)
        case CallEnded():
            return _ended(state, event, now, policy)
        case CallHeld(call):
            return _talk(state, lambda phase: talk.held(phase, call, now, policy)), ()
        case CallResumed(call):
            return _talk(state, lambda phase: talk.resumed(phase, call, now, policy)), ()
        case SoundStopped(call, seconds):
            until = now - seconds + policy.silence_seconds
            return _talk(state, lambda phase: talk.sounded(phase, call, until)), ()
        case SoundCame(call):
            return _talk(state, lambda phase: talk.sounded(phase, call, None)), ()
        case CallTransferred(call, new, to):
            return _move(state, call, Move(new, "out", to, now + policy.ring_seconds))
        case CallReplaced(call, new, peer):
            return _move(state, call, Move(new, "in", peer, now + policy.ring_seconds))
        case DigitReceived(call, digit):
            return _digit(state, call, digit, now, policy)
        case MessageReceived(peer, text, secure):
            return _message(state, peer, text, secure, now, policy)
        case StrikeMoved(door, released):
            if released or door not in state.released:
                return state, ()  # told for those who watch
            # The guardian has locked it early, or never released it: it is not shown as open.
            still = {name: until for name, until in state.released.items() if name != door}
            return replace(state, released=still), (Lock(door),)
        case HealthChanged(part, fault):
            others = {name: why for name, why in state.faults.items() if name != part}
            return replace(state, faults=others if fault is None else others | {part: fault}), ()
        case HoursChanged(hours):
            return replace(state, hours=hours), ()
        case Stopped():
            return _stop(state, now)
        case _:
            assert_never(event)


def _turn_away(event: Event) -> tuple[Action, ...]:
    match event:
        case CallOffered(call):
            return (Refuse(call, TEMPORARILY_UNAVAILABLE),)
        case CallTransferred(new=new) | CallReplaced(new=new):
            return (HangUp(new),)
        case _:
            return ()


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
            return calling.ring_enough(state, phase, deadline, now, policy)
        case Offered() as phase:
            return _give_up(state, phase, Outcome.NO_ANSWER, None, None, now, policy)
        case Talking() as phase:
            return _meet_in_talk(state, phase, deadline, now, policy)
        case Moving() as phase:
            again = _plan(state, phase.button, policy)
            return _give_up(state, phase, Outcome.NO_ANSWER, phase.button, again, now, policy)
        case Ending() as phase:
            return _over(state, phase, calling.SILENT, now, policy)
        case _:
            return replace(state, phase=Idle()), ()


# Buttons


def _contact_down(state: State, button: str, at: float, now: float) -> State:
    contact = state.contacts.get(button)
    if contact is not None and contact.down:
        return state
    changed = Contact(True, now, at) if contact is None else replace(contact, down=True, since=now, edge=at)
    return replace(state, contacts={**state.contacts, button: changed})


def _contact_up(state: State, button: str, at: float, now: float, policy: Policy) -> Result:
    contact = state.contacts.get(button)
    if contact is None or not contact.down:
        return state, ()
    down_for = contact.down_for + max(0.0, at - contact.edge)
    # Both edges may come at once, late: the time between them counts.
    pressed = not contact.counted and down_for >= policy.settle_seconds
    changed = replace(
        contact, down=False, since=now, edge=at, down_for=down_for, counted=contact.counted or pressed
    )
    state = replace(state, contacts={**state.contacts, button: changed})
    return _press(state, button, now, policy) if pressed else (state, ())


def _settle(state: State, button: str, contact: Contact, now: float, policy: Policy) -> Result:
    """A contact has been down long enough in all, bounces left out, or quietly up for as long."""
    if not contact.down:
        others = {name: other for name, other in state.contacts.items() if name != button}
        return replace(state, contacts=others), ()
    counted = {**state.contacts, button: replace(contact, counted=True)}
    return _press(replace(state, contacts=counted), button, now, policy)


def _press(state: State, button: str, now: float, policy: Policy) -> Result:
    plan = _plan(state, button, policy)
    if plan is None:
        return state, ()
    repeated = button == state.last_button and now - state.last_press < policy.repeat_seconds
    state = replace(state, last_press=now, last_button=button)
    match state.phase:
        case Idle():
            return calling.ring(state, button, plan, now)
        case Offered(accepted=False) as phase:
            return replace(state, phase=replace(phase, accepted=True)), (Answer(phase.call),)
        case _ if repeated:
            return state, ()
        case Concluded():
            return calling.ring(state, button, plan, now)
        case Calling(button=ringing) as phase if ringing != button:
            return calling.cancel(state, phase, button, plan, now, policy)
        case Talking(button=talking, since=since) if talking not in {None, button} or (
            now - since < policy.repeat_seconds
        ):
            # somebody else's conversation, or a finger that came just after the answer
            return state, (RecordPress(button, "somebody is talking"),)
        case Moving(button=moving) if moving not in {None, button}:
            return state, (RecordPress(button, "somebody else's visitor is put through"),)
        case Calling() | Talking() | Moving():
            return _hang_up(state, now, policy)
        case Ending() as phase:
            return replace(state, phase=replace(phase, button=button, plan=plan)), ()
        case _:
            return state, ()


def _plan(state: State, button: str | None, policy: Policy) -> Plan | None:
    """Whom a button rings at this time of day."""
    if button is None:
        return None
    if button in state.hours:
        return policy.hours[button][state.hours[button]]
    return policy.buttons.get(button)


# Calls


def _rang(state: State, call: int, early_media: bool) -> State:
    match state.phase:
        case Calling() as phase:
            return replace(state, phase=calling.rang(phase, call, early_media))
        case (Talking(move=Move() as move) | Moving(move=move)) as phase if move.call == call:
            move = replace(move, rang=True, early_media=move.early_media or early_media)
            return replace(state, phase=replace(phase, move=move))
        case _:
            return state


def _answered(state: State, call: int, now: float, policy: Policy) -> Result:
    until = now + policy.talk_seconds
    match state.phase:
        case Calling() as ring:
            return calling.answered(state, ring, call, now, policy)
        case Offered(call=current, accepted=True) as offered if current == call:
            phase = Talking(call, "in", None, offered.peer, since=now, until=until)
            return replace(
                state, phase=replace(phase, mode=offered.mode, diverted_by=offered.diverted_by)
            ), ()
        case Talking(move=Move(call=current) as move) as left if current == call:
            phase = talk.moved(move, left.button, left.mode, now, left.until, left.wrong, policy)
            record = talk.record(left, now - left.since, _transferred_to(move))
            return replace(state, phase=phase), (HangUp(left.call), record)
        case Moving(move=Move(call=current) as move) as moving if current == call:
            phase = talk.moved(move, moving.button, moving.mode, now, moving.talk_until, moving.wrong, policy)
            return replace(state, phase=phase), ()
        case Talking() as joined if offer := _joining(joined, call):
            guest = Talking(call, "in", None, offer.peer, since=now, until=until)
            guest = replace(guest, diverted_by=offer.diverted_by)
            others = (*joined.others, guest)
            joining = tuple(each for each in joined.joining if each is not offer)
            phase = replace(joined, others=others, joining=joining)
            return replace(state, phase=phase), talk.mixed(phase)
        case _:
            return state, ()


def _offer(state: State, offer: CallOffered, now: float, policy: Policy) -> Result:
    caller = caller_of(policy.callers, offer.peer)
    if caller is None:
        return state, (Refuse(offer.call, FORBIDDEN),)
    if caller.mode is Mode.TALK and policy.join and _has_room(state.phase):
        return _let_join(state, offer, now, policy)
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
    answer = Answer(offer.call) if caller.automatic else Alert(offer.call)
    return replace(state, phase=phase), (answer,)


def _hang_up(state: State, now: float, policy: Policy) -> Result:
    match state.phase:
        case Talking() as phase:
            return _give_up(state, phase, Outcome.ANSWERED, None, None, now, policy)
        case Calling() as phase:
            return calling.cancel(state, phase, None, None, now, policy)
        case (Offered() | Moving()) as phase:
            return _give_up(state, phase, Outcome.CANCELLED, None, None, now, policy)
        case Ending() as phase:
            return replace(state, phase=replace(phase, button=None, plan=None)), ()
        case _:
            return state, ()


def _give_up(
    state: State,
    phase: Offered | Talking | Moving,
    outcome: Outcome,
    button: str | None,
    plan: Plan | None,
    now: float,
    policy: Policy,
    why: str = "",
) -> Result:
    """End a call from our side; `plan`, if any, is rung once it is over."""
    talked = 0.0
    also: tuple[Action, ...] = ()
    if isinstance(phase, Talking):
        talked, also = now - phase.since, talk.dismissed(phase, now, why or "hung up")
    ending = Ending(phase, outcome, button, plan, talked, now + policy.hang_up_seconds, why)
    return replace(state, phase=ending), (HangUp(phase.call), *also)


def _ended(state: State, event: CallEnded, now: float, policy: Policy) -> Result:
    call, status, reason = event.call, event.status, event.reason
    match state.phase:
        case Ending(ended=Calling() as ring) as ending:
            attempt = calling.attempt_of(ring.attempts, call)
            if attempt is None:
                return state, ()
            if len(ring.attempts) == 1:
                return _over(state, ending, reason, now, policy)
            record = calling.record(ring, attempt, attempt.given_up or ending.outcome, reason)
            return replace(state, phase=replace(ending, ended=calling.without(ring, attempt))), (record,)
        case Ending() as ending if ending.call == call:
            return _over(state, ending, reason, now, policy)
        case Calling() as ring:
            attempt = calling.attempt_of(ring.attempts, call)
            if attempt is None:
                return state, ()
            return calling.ended(state, ring, attempt, event, now, policy)
        case Talking() as talking:
            return _left(state, talking, call, status, reason, now, policy)
        case Moving(move=move) as moving if move.call == call:
            again = _plan(state, moving.button, policy)
            ending = Ending(moving, outcome_of(status, rang=move.rang), moving.button, again, 0.0, now)
            return _over(state, ending, reason, now, policy)
        case Offered(call=current) as offered if current == call:
            return _over(state, Ending(offered, Outcome.CANCELLED, None, None, 0.0, now), reason, now, policy)
        case _:
            return state, ()


def _over(state: State, ending: Ending, reason: str, now: float, policy: Policy) -> Result:
    """What was hung up is over: keep the records, then ring whom another press wants or show how it went."""
    records = _records(ending, ending.why or reason)
    if ending.plan is not None:
        state, actions = calling.ring(state, ending.button, ending.plan, now)
        return state, (*actions, *records)
    phase = Concluded(ending.outcome, until=now + policy.outcome_seconds)
    return replace(state, phase=phase), records


def _records(ending: Ending, reason: str) -> tuple[Action, ...]:
    match ending.ended:
        case Calling() as ring:
            calls = (
                calling.record(ring, attempt, attempt.given_up or ending.outcome, reason)
                for attempt in ring.attempts
            )
            return (*calls, *calling.record_ring(ring, ending.outcome))
        case Talking() as ended:
            direction, button, diverted_by = ended.direction, ended.button, ended.diverted_by
        case Moving() as ended:
            direction, button, diverted_by = ended.move.direction, ended.button, ""
        case ended:
            direction, button, diverted_by = "in", None, ended.diverted_by
    peer, talked = ending.ended.peer, ending.talked
    return (RecordCall(direction, button, peer, ending.outcome, reason, talked, diverted_by),)


# Within a conversation


def _talk(state: State, change: Callable[[Talking], Talking]) -> State:
    return replace(state, phase=change(state.phase)) if isinstance(state.phase, Talking) else state


def _meet_in_talk(state: State, phase: Talking, deadline: float, now: float, policy: Policy) -> Result:
    if phase.until == deadline:
        return _give_up(state, phase, Outcome.ANSWERED, None, None, now, policy, talk.TIME_IS_UP)
    if not phase.warned and phase.warns_at == deadline:
        everybody = tuple(party.call for party in phase.parties)
        return replace(state, phase=replace(phase, warned=True)), (Warn(everybody),)
    if phase.move is not None and phase.move.until == deadline:
        record = talk.record_move(phase.move, phase.button, Outcome.NO_ANSWER, "no answer in time")
        return replace(state, phase=talk.stays(phase, now)), (HangUp(phase.move.call), record)
    offer = next((offer for offer in phase.joining if offer.until == deadline), None)
    if offer is not None:
        others = tuple(each for each in phase.joining if each is not offer)
        return replace(state, phase=replace(phase, joining=others)), (HangUp(offer.call),)
    lost = next(party for party in phase.parties if party.lost_at == deadline)
    why = talk.loss(lost, policy)
    left = talk.without(phase, lost.call)
    if left is None:
        return _give_up(state, phase, Outcome.ANSWERED, None, None, now, policy, why)
    record = talk.record(lost, now - lost.since, why)
    return replace(state, phase=left), (HangUp(lost.call), record, *talk.mixed(left))


def _left(
    state: State, phase: Talking, call: int, status: int, reason: str, now: float, policy: Policy
) -> Result:
    """A call of the conversation is over: the visitor is left with whoever is still there."""
    if phase.move is not None and phase.move.call == call:
        outcome = outcome_of(status, rang=phase.move.rang)
        record = talk.record_move(phase.move, phase.button, outcome, reason)
        return replace(state, phase=talk.stays(phase, now)), (record,)
    if offer := _joining(phase, call):
        others = tuple(each for each in phase.joining if each is not offer)
        return replace(state, phase=replace(phase, joining=others)), ()
    gone = talk.party(phase, call)
    if gone is None:
        return state, ()
    left = talk.without(phase, call)
    if left is not None:
        return replace(state, phase=left), (talk.record(gone, now - gone.since, reason), *talk.mixed(left))
    if phase.move is not None:
        record = talk.record(phase, now - phase.since, _transferred_to(phase.move))
        moving = Moving(phase.move, phase.button, phase.until, phase.mode, phase.wrong)
        return replace(state, phase=moving), (record,)
    again = _plan(state, phase.button, policy) if now < phase.stranded_until else None
    ending = Ending(phase, Outcome.ANSWERED, phase.button, again, now - phase.since, now)
    state, actions = _over(state, ending, reason, now, policy)
    return state, (*talk.dismissed(phase, now, reason), *actions)


def _move(state: State, call: int, move: Move) -> Result:
    """Whoever talks with the visitor has sent him to another, or another takes him over."""
    match state.phase:
        case Talking(call=current, move=None, others=(), joining=()) as phase if current == call:
            return replace(state, phase=replace(phase, move=move)), ()
        case _:
            return state, (HangUp(move.call),)


def _transferred_to(move: Move) -> str:
    return f"transferred to {move.peer}"


def _joining(phase: Talking, call: int) -> Offered | None:
    return next((offer for offer in phase.joining if offer.call == call), None)


def _has_room(phase: Phase) -> bool:
    match phase:
        case Talking(mode=Mode.TALK, move=None, others=others, joining=joining):
            return len(others) + len(joining) < talk.MOST_OTHERS
        case _:
            return False


def _let_join(state: State, offer: CallOffered, now: float, policy: Policy) -> Result:
    until = now + policy.ring_seconds
    guest = Offered(offer.call, offer.peer, until, accepted=True, diverted_by=offer.diverted_by)

    def change(phase: Talking) -> Talking:
        return replace(phase, joining=(*phase.joining, guest))

    return _talk(state, change), (Answer(offer.call),)


# The door


def _digit(state: State, call: int, digit: str, now: float, policy: Policy) -> Result:
    match state.phase:
        case Calling() as ring:
            return calling.keyed(state, ring, call, now, policy)
        case Talking() as phase if typist := talk.party(phase, call):
            fresh = not typist.digits or now >= typist.digits_until
            digits = digit if fresh else (typist.digits + digit)[: LONGEST_CODE + 1]
            until = now + policy.code_seconds if fresh else typist.digits_until
            if digit != "#":
                phase = talk.typed(phase, call, digits, until)
                return replace(state, phase=phase), ()
            phase = talk.typed(phase, call, "", until)
            door = door_for(policy.doors, digits)
            if door is None:
                return _wrong_code(state, replace(phase, wrong=phase.wrong + 1), typist.peer, now, policy)
            state = replace(state, phase=replace(phase, wrong=0))
            return _open(state, door, "dtmf", typist.peer, now, policy)
        case _:
            return state, ()


def _wrong_code(state: State, phase: Talking, peer: str, now: float, policy: Policy) -> Result:
    """Record a wrong code; after a few the call ends, so that nobody can try them all."""
    record = RecordAccess(None, "dtmf", peer, False, "wrong code")
    if phase.wrong < MOST_WRONG_CODES:
        return replace(state, phase=phase), (record,)
    state, actions = _give_up(state, phase, Outcome.ANSWERED, None, None, now, policy)
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
        case Calling() as phase:
            actions += [HangUp(attempt.call) for attempt in phase.live]
            actions += _records(Ending(phase, Outcome.CANCELLED, None, None, 0.0, now), "stopped")
        case Offered() | Moving() as phase:
            ending = Ending(phase, Outcome.CANCELLED, None, None, 0.0, now)
            actions += [HangUp(phase.call), *_records(ending, "stopped")]
        case Talking() as phase:
            ending = Ending(phase, Outcome.ANSWERED, None, None, now - phase.since, now)
            actions += [HangUp(phase.call), *_records(ending, "stopped")]
            actions += talk.dismissed(phase, now, "stopped")
        case Ending() as phase:
            actions += _records(phase, "stopped")
        case _:
            pass
    off = State(phase=Off(), faults=state.faults, last_press=state.last_press, calls=state.calls)
    return off, tuple(actions)
