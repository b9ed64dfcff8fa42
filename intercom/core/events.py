"""What has happened: everything that can move the station, named in the past tense.

An event is a fact. It carries numbers and strings only, so that any thread may make one.
Calls that the station places are numbered up from 1 by the core; calls offered to it are numbered
down from -1 by the SIP side, so that the two never meet.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimePassed:
    """A deadline of the state may be due."""


@dataclass(frozen=True, slots=True)
class ButtonDown:
    """The raw contact of a button closed, `at` that time on the clock of the steps. It may bounce.

    None is the time of the step. A busy machine takes the step later, and a short press is none the less one.
    """

    button: str
    at: float | None = None


@dataclass(frozen=True, slots=True)
class ButtonUp:
    """The raw contact of a button opened; `at` as above. It may bounce."""

    button: str
    at: float | None = None


@dataclass(frozen=True, slots=True)
class ButtonPressed:
    """A whole press that needs no settling: an operator's command stands for the finger."""

    button: str


@dataclass(frozen=True, slots=True)
class CallRequested:
    """An operator asked the station to call an address."""

    to: str


@dataclass(frozen=True, slots=True)
class HangUpRequested:
    """An operator asked to end the call, whatever its state."""


@dataclass(frozen=True, slots=True)
class OpenRequested:
    """An operator asked to release a door."""

    door: str


@dataclass(frozen=True, slots=True)
class CallOffered:
    """A peer calls the station; `diverted_by` is whose telephone sent the call on, "" if nobody's."""

    call: int
    peer: str
    diverted_by: str = ""


@dataclass(frozen=True, slots=True)
class CallRang:
    """The far end is alerting (180), or sends its own progress tone or voice (183 with media)."""

    call: int
    early_media: bool = False


@dataclass(frozen=True, slots=True)
class CallAnswered:
    """Both sides have agreed on the call (2xx); the microphone is live from here on."""

    call: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call is over, with the SIP status that ended it (RFC 3261 section 21) and its reason.

    `contacts` are the addresses that a redirection (3xx) names, the best first.
    """

    call: int
    status: int
    reason: str
    contacts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CallHeld:
    """The far side has put the call on hold: it does not hear the door until `CallResumed`."""

    call: int


@dataclass(frozen=True, slots=True)
class CallResumed:
    """The far side has taken the call back from hold."""

    call: int


@dataclass(frozen=True, slots=True)
class SoundStopped:
    """No sound (RTP) has come from the far side for these seconds."""

    call: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SoundCame:
    """Sound comes from the far side again."""

    call: int


@dataclass(frozen=True, slots=True)
class CallTransferred:
    """The far side of a call has sent us to somebody permitted (REFER), and the new call is being placed.

    The SIP side numbers it, as it numbers calls that are offered.
    """

    call: int
    new: int
    to: str


@dataclass(frozen=True, slots=True)
class CallReplaced:
    """A permitted peer takes a call over (INVITE with Replaces); the SIP side has accepted the new call."""

    call: int
    new: int
    peer: str


@dataclass(frozen=True, slots=True)
class DigitReceived:
    """A DTMF digit arrived inside a call as an RTP event (RFC 4733) or as SIP INFO, never as sound."""

    call: int
    digit: str

    def __repr__(self) -> str:
        """A digit may belong to a code: it stays out of logs."""
        return f"DigitReceived(call={self.call}, digit=*)"


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A permitted peer wrote a line; `secure` if it came over TLS."""

    peer: str
    text: str
    secure: bool

    def __repr__(self) -> str:
        """It may be a code: it stays out of logs."""
        return f"MessageReceived(peer={self.peer!r}, text=*, secure={self.secure})"


@dataclass(frozen=True, slots=True)
class StrikeMoved:
    """The guardian has released or locked a strike, by our action or for a reason of its own."""

    door: str
    released: bool


@dataclass(frozen=True, slots=True)
class HealthChanged:
    """A part (an account, the sound card, a pin) works (`fault` is None) or says why it does not."""

    part: str
    fault: str | None


@dataclass(frozen=True, slots=True)
class HoursChanged:
    """Another time of day has begun: for each button that has one now the number of its plan."""

    hours: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Stopped:
    """The service is going down: end the call, lock the doors, accept nothing more."""


Event = (
    TimePassed
    | ButtonDown
    | ButtonUp
    | ButtonPressed
    | CallRequested
    | HangUpRequested
    | OpenRequested
    | CallOffered
    | CallRang
    | CallAnswered
    | CallEnded
    | CallHeld
    | CallResumed
    | SoundStopped
    | SoundCame
    | CallTransferred
    | CallReplaced
    | DigitReceived
    | MessageReceived
    | StrikeMoved
    | HealthChanged
    | HoursChanged
    | Stopped
)
