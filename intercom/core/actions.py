"""What is to be done: the only way in which the core touches the world, named in the imperative."""

from dataclasses import dataclass
from enum import StrEnum

from intercom.core.guide import Hearing, Lamp, Tone
from intercom.core.ringing import Outcome


@dataclass(frozen=True, slots=True)
class Dial:
    """Place a call; everything that is said about it later carries the same number.

    `via` is a proxy that it shall go through.
    """

    call: int
    to: str
    via: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """Tell the caller of an offered call that the door rings (180)."""

    call: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Accept an offered call with 200."""

    call: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Turn an offered call down with a SIP status."""

    call: int
    status: int


@dataclass(frozen=True, slots=True)
class HangUp:
    """End a call: CANCEL before the answer, BYE after it."""

    call: int


@dataclass(frozen=True, slots=True)
class Connect:
    """Join a call's sound to the door so far and no further; one that is hung up or over is in silence."""

    call: int
    hearing: Hearing


@dataclass(frozen=True, slots=True)
class Mix:
    """Let these calls hear each other, beside the door."""

    calls: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Warn:
    """Play the warning tone once, at the door and into these calls: the time is nearly up."""

    calls: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShowLamp:
    """Show this pattern on every lamp of the panel."""

    lamp: Lamp


@dataclass(frozen=True, slots=True)
class Play:
    """Play this tone at the door in place of the one before; `Tone.SILENCE` ends it."""

    tone: Tone


@dataclass(frozen=True, slots=True)
class Release:
    """Release a door's strike, for at most this many seconds."""

    door: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Lock:
    """Lock a door's strike."""

    door: str


@dataclass(frozen=True, slots=True)
class RecordCall:
    """Keep how a call went; `button` is None if no button placed it, `seconds` the time talked.

    `diverted_by` is whose telephone sent the call on to the station, "" if nobody's.
    """

    direction: str
    button: str | None
    peer: str
    outcome: Outcome
    reason: str
    seconds: float
    diverted_by: str = ""


@dataclass(frozen=True, slots=True)
class RecordRing:
    """Keep how a ring that took several calls went as a whole; each of these has its own record."""

    button: str | None
    calls: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class RecordPress:
    """Keep a press that neither rang nor answered nor ended anything, and why."""

    button: str
    reason: str


@dataclass(frozen=True, slots=True)
class RecordAccess:
    """Keep who asked for a door, how, and the answer; `door` is None for a code that fits none."""

    door: str | None
    how: str
    peer: str
    granted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Write one line to somebody (RFC 3428)."""

    to: str
    text: str


class Presence(StrEnum):
    """What those who watch the station see (RFC 3863, RFC 4480)."""

    OPEN = "open"
    BUSY = "busy"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ShowPresence:
    """Tell those who watch the station how it is, and why."""

    presence: Presence
    note: str


Action = (
    Dial
    | Alert
    | Answer
    | Refuse
    | HangUp
    | Mix
    | Warn
    | Connect
    | ShowLamp
    | Play
    | Release
    | Lock
    | RecordCall
    | RecordRing
    | RecordPress
    | RecordAccess
    | SendMessage
    | ShowPresence
)
