"""What the station tells the person at the door: for each state a lamp pattern, a tone, who is heard.

All are derived from the state alone, so a lamp can never disagree with what the station does, nor a
microphone with the lamp.
"""

from enum import StrEnum
from typing import assert_never

from intercom.core.policy import Mode
from intercom.core.ringing import Outcome
from intercom.core.state import Calling, Concluded, Ending, Idle, Move, Moving, Off, Offered, State, Talking


class Lamp(StrEnum):
    """The grammar of lamp patterns; the panel knows each by this name."""

    DARK = "dark"
    READY = "ready"
    CALLING = "calling"
    RINGING = "ringing"
    TALKING = "talking"
    ANNOUNCEMENT = "announcement"
    DOOR_OPEN = "door_open"
    FAULT = "fault"
    BUSY = "busy"
    REJECTED = "rejected"
    NOT_FOUND = "not_found"
    NO_ANSWER = "no_answer"
    UNREACHABLE = "unreachable"
    FAILED = "failed"


class Tone(StrEnum):
    """The tones at the door; the sound side knows each by this name."""

    SILENCE = "silence"
    HEARD = "heard"
    RINGBACK = "ringback"
    HOLD = "hold"
    WARNING = "warning"
    DOORBELL = "doorbell"
    DOOR_OPEN = "door_open"
    END = "end"
    BUSY = "busy"
    REJECTED = "rejected"
    NOT_FOUND = "not_found"
    NO_ANSWER = "no_answer"
    UNREACHABLE = "unreachable"
    FAILED = "failed"


class Hearing(StrEnum):
    """How far a call's sound is joined to the door."""

    NONE = "none"
    SPEAKER = "speaker"
    """The far side is heard at the door; the microphone is closed."""
    MICROPHONE = "microphone"
    """The far side hears the door, and is not heard there."""
    PROMPT = "prompt"
    """The far side hears a tone that asks for a key; neither hears the other."""
    TALK = "talk"
    """Both hear each other."""


_HEARINGS = {Mode.TALK: Hearing.TALK, Mode.LISTEN: Hearing.MICROPHONE, Mode.ANNOUNCE: Hearing.SPEAKER}


def lamp_of(state: State) -> Lamp:
    """The one lamp pattern of a state. An open door is shown above all else, a fault only while idle."""
    if state.released:
        return Lamp.DOOR_OPEN
    match state.phase:
        case Idle():
            return Lamp.FAULT if state.faults else Lamp.READY
        case Calling() as calling:
            return Lamp.RINGING if any(attempt.rang for attempt in calling.live) else Lamp.CALLING
        case Offered():
            return Lamp.RINGING
        case Talking(mode=Mode.ANNOUNCE):
            return Lamp.ANNOUNCEMENT
        case Talking():
            return Lamp.TALKING
        case Moving(move=move):
            return Lamp.RINGING if move.rang else Lamp.CALLING
        case Ending(plan=plan):
            return Lamp.CALLING if plan else Lamp.READY
        case Concluded(outcome=Outcome.ANSWERED | Outcome.CANCELLED | Outcome.REDIRECTED):
            return Lamp.READY
        case Concluded(outcome=outcome):
            return Lamp(outcome.value)
        case Off():
            return Lamp.DARK
        case _:
            assert_never(state.phase)


def tone_of(state: State) -> Tone:
    """The one tone of a state. Early media wins over the local ringback tone."""
    if state.released:
        return Tone.DOOR_OPEN
    match state.phase:
        case Idle() | Ending() | Off():
            return Tone.SILENCE
        case Talking(move=Move() as move) | Moving(move=move):
            silent = move.early_media or move.direction == "in"  # who takes a call over has answered
            return Tone.SILENCE if silent else Tone.RINGBACK
        case Talking() as phase:
            # Music of the far side wins over our own tone, and so does anybody else who talks.
            waits = all(
                party.held_until is not None and party.quiet_until is not None for party in phase.parties
            )
            return Tone.HOLD if waits else Tone.SILENCE
        case Calling() as calling:
            if calling.heard is not None or not calling.live:
                return Tone.SILENCE
            return Tone.RINGBACK if any(attempt.rang for attempt in calling.live) else Tone.HEARD
        case Offered(accepted=accepted):
            return Tone.SILENCE if accepted else Tone.DOORBELL
        case Concluded(outcome=Outcome.ANSWERED | Outcome.CANCELLED | Outcome.REDIRECTED):
            return Tone.END
        case Concluded(outcome=outcome):
            return Tone(outcome.value)
        case _:
            assert_never(state.phase)


def hearing_of(state: State) -> dict[int, Hearing]:
    """How far the sound of each call is joined to the door; one that is not named is in silence.

    A microphone is open towards nobody but who talks, and of several who send early media one is heard.
    """
    match state.phase:
        case Calling() as calling:
            asked = {attempt.call: Hearing.PROMPT for attempt in calling.live if attempt.answered}
            return asked if calling.heard is None else asked | {calling.heard: Hearing.SPEAKER}
        case Talking() as talking:
            heard = {party.call: _HEARINGS[party.mode] for party in talking.parties}
            return heard if talking.move is None else heard | _early(talking.move)
        case Moving(move=move):
            return _early(move)
        case _:
            return {}


def _early(move: Move) -> dict[int, Hearing]:
    return {move.call: Hearing.SPEAKER} if move.early_media else {}
