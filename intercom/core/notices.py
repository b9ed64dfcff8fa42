"""What is written to people, and what those see who watch the station.

Both follow from how a step has moved the state and from what it does, so they can never disagree with it.
"""

from collections.abc import Iterator, Sequence

from intercom.core.actions import Action, Presence, RecordAccess, SendMessage, ShowPresence
from intercom.core.policy import Occasion, Policy
from intercom.core.ringing import Outcome
from intercom.core.state import Calling, Concluded, Ending, Idle, Off, State


def presence_of(state: State) -> ShowPresence:
    """What watchers see, with a note that names the parts which are out of order, but not why.

    An account that is not registered does not make the station out of order: another may be, and nobody is
    told by the one that is not.
    """
    broken = sorted(part for part in state.faults if not part.startswith("account "))
    match state.phase:
        case Off():
            return ShowPresence(Presence.CLOSED, "switched off")
        case _ if broken:
            return ShowPresence(Presence.CLOSED, f"out of order: {', '.join(broken)}")
        case Idle() | Concluded():
            return ShowPresence(Presence.OPEN, "")
        case _:
            return ShowPresence(Presence.BUSY, "in a call")


def messages(
    before: State, after: State, actions: Sequence[Action], policy: Policy
) -> tuple[SendMessage, ...]:
    """What is written because one event, or one deadline, has moved the state and made it act."""
    return tuple(
        SendMessage(to, text)
        for occasion, button, text in _occasions(before, after, actions)
        for to in _readers(policy, occasion, button)
    )


def _readers(policy: Policy, occasion: Occasion, button: str) -> tuple[str, ...]:
    """Who is told, each once, in the order of the settings."""
    found = (
        to
        for notice in policy.notices
        if occasion in notice.on and (not button or not notice.buttons or button in notice.buttons)
        for to in notice.to
    )
    return tuple(dict.fromkeys(found))


def _occasions(before: State, after: State, actions: Sequence[Action]) -> Iterator[tuple[Occasion, str, str]]:
    """Each with the button it is about, if any, and its words."""
    rang, rings = _visit(before), _visit(after)
    if rings is not None and rings != rang:
        yield Occasion.PRESS, rings, f"somebody rings '{rings}'"
    match after.phase:
        case Concluded(outcome=outcome) if rang is not None and (
            outcome not in {Outcome.ANSWERED, Outcome.CANCELLED}
        ):
            yield Occasion.MISSED, rang, f"nobody answered '{rang}' ({outcome.value.replace('_', ' ')})"
        case _:
            pass
    for action in actions:
        if isinstance(action, RecordAccess):
            who = f"by {action.how}" + (f" of {action.peer}" if action.peer else "")
            if action.granted:
                yield Occasion.RELEASED, "", f"door '{action.door}' was released {who}"
            else:
                what = "a code" if action.door is None else f"door '{action.door}'"
                yield Occasion.REFUSED, "", f"{what} was refused: {action.reason}, {who}"
    for part, fault in after.faults.items():
        if part not in before.faults:
            yield Occasion.FAULT, "", f"fault: {part}: {fault}"


def _visit(state: State) -> str | None:
    """The button of a visitor who waits for an answer."""
    match state.phase:
        case Calling(button=button):
            return button
        case Ending(button=button, plan=plan) if plan is not None:
            return button
        case Ending(ended=Calling(button=button), outcome=outcome) if outcome is not Outcome.CANCELLED:
            return button
        case _:
            return None
