"""What the station tells the person at the door: one lamp pattern and one tone for each state.

Both are derived from the state alone, so a lamp can never disagree with what the station does.
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


def lamp_of(state: State) -> Lamp:
    """The one lamp pattern of a state. An open door is shown above all else, a fault only while idle."""
    if state.released:
        return Lamp.DOOR_OPEN
    match state.phase:
        case Idle():
            return Lamp.FAULT if state.faults else Lamp.READY
        case Calling(rang=rang):
            return Lamp.RINGING if rang else Lamp.CALLING
        case Offered():
            return Lamp.RINGING
        case Talking(mode=Mode.ANNOUNCE):
            return Lamp.ANNOUNCEMENT
        case Talking():
            return Lamp.TALKING
        case Moving(move=move):
            return Lamp.RINGING if move.rang else Lamp.CALLING
        case Ending(targets=targets):
            return Lamp.CALLING if targets else Lamp.READY
        case Concluded(outcome=Outcome.ANSWERED | Outcome.CANCELLED):
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
        case Calling(early_media=True):
            return Tone.SILENCE
        case Calling(rang=rang):
            return Tone.RINGBACK if rang else Tone.HEARD
        case Offered(accepted=accepted):
            return Tone.SILENCE if accepted else Tone.DOORBELL
        case Concluded(outcome=Outcome.ANSWERED | Outcome.CANCELLED):
            return Tone.END
        case Concluded(outcome=outcome):
            return Tone(outcome.value)
        case _:
            assert_never(state.phase)
