"""One call as pjsua2 tells of it.

Rule: a callback copies what it needs and tells its owner; it decides nothing.
"""

import logging
import re
import time
from typing import Any, NamedTuple, Protocol

import pjsua2 as pj

from intercom.core.events import CallHeld, CallRang, CallResumed, DigitReceived, SoundCame, SoundStopped
from intercom.core.guide import Hearing
from intercom.sip.account import Account
from intercom.sip.callbacks import guarded
from intercom.sip.digits import DigitFilter
from intercom.sip.targets import Server
from intercom.sip.wire import Redirection, offers_clear_sound, printable, redirection_of

log = logging.getLogger(__name__)

FIRST_ACTIVE = -1
QUIET_SECONDS = 2.0
"""How long no packet of sound comes before that is told."""
ONE_WAY_SECONDS = 170.0
"""The same for a far side that has said that it only listens: nothing shows that it is still there."""
NOTHING_FITS = "the far side answered with no sound that it was offered"
IN_THE_CLEAR = "the far side does not encrypt sound, which the settings demand: refused"

# pjsip's own account of a call's media; what the far side says of itself never begins a line of it.
_ENCRYPTED = re.compile(r"^ +SRTP status: Active ", re.MULTILINE)


_AGREED = {pj.PJSUA_CALL_MEDIA_ACTIVE, pj.PJSUA_CALL_MEDIA_REMOTE_HOLD}


class _Stream(NamedTuple):
    number: int
    direction: int
    held: bool


class Owner(Protocol):
    """Who is told of calls. All of it runs on the SIP thread."""

    def tell(self, news: Any) -> None:
        """Take an event."""

    def heard(self, number: int) -> None:
        """The far side has said something."""

    def answered(self, number: int) -> None:
        """The far side talks with us."""

    def ended(self, number: int, status: int, reason: str) -> None:
        """The call is over."""

    def end(self, number: int) -> None:
        """Hang up."""

    def join(
        self, number: int, media: pj.AudioMedia, *, speaker: bool, microphone: bool, prompt: bool
    ) -> None:
        """Join a call's sound to the door so far and no further."""

    def transferred(self, number: int, refer_to: str) -> "Call | None":
        """The far side sends us to somebody else: the call to be placed there, or None to refuse."""

    def replaced(self, number: int, invite: str) -> "Call | None":
        """Somebody wants to take the place of the far side: the call that he gets, or None to refuse."""


class Call(pj.Call):
    """One call, known outside by its number."""

    def __init__(
        self,
        owner: Owner,
        account: Account,
        number: int,
        server: Server,
        call_id: int = pj.INVALID_ID,
        *,
        instead_of: int | None = None,
    ) -> None:
        super().__init__(account, call_id)
        self.number = number
        self.dialled = call_id == pj.INVALID_ID
        self.server = server
        self.registrant = account.registrant  # not the account itself: it must be gone when it is left
        self.instead_of = instead_of
        self._held = False
        self._quiet = False
        self._packets = 0
        self._heard_at = 0.0
        self._owner = owner
        self._digits = DigitFilter()
        self._in_the_clear = False
        self._hearing = Hearing.NONE
        self.redirection: Redirection | None = None
        self._nothing_fits = False
        self._answered = False

    def abandon(self) -> None:
        self._owner.end(self.number)

    @guarded
    def onCallTsxState(self, prm: pj.OnCallTsxStateParam) -> None:
        self._listen(prm.e)

    @guarded
    def onCallState(self, prm: pj.OnCallStateParam) -> None:
        self._listen(prm.e)
        info = self.getInfo()
        if info.state == pj.PJSIP_INV_STATE_EARLY and info.role == pj.PJSIP_ROLE_UAC:
            self._owner.tell(CallRang(self.number))
        elif info.state == pj.PJSIP_INV_STATE_CONFIRMED:
            self._nothing_fits = self._stream() is None
            if not (self._in_the_clear or self._nothing_fits):  # else pjsip is about to hang up
                self._answered = True
                self._heard_at = time.monotonic()
                self._owner.answered(self.number)
                self._notice_hold()
        elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            reason = NOTHING_FITS if self._nothing_fits else printable(info.lastReason)
            reason = IN_THE_CLEAR if self._in_the_clear else reason
            if self.redirection is not None and info.lastStatusCode == pj.PJSIP_SC_REQUEST_TERMINATED:
                # Which pjsip makes of it, since it follows none.
                self._owner.ended(self.number, self.redirection.status, self.redirection.reason)
            else:
                self._owner.ended(self.number, info.lastStatusCode, reason)

    @guarded
    def onCallMediaState(self, prm: pj.OnCallMediaStateParam) -> None:
        confirmed = self.getInfo().state == pj.PJSIP_INV_STATE_CONFIRMED
        if confirmed:
            self._notice_hold()
        self.connect()
        if self.media() is not None and self.getInfo().state == pj.PJSIP_INV_STATE_EARLY:
            self._owner.tell(CallRang(self.number, early_media=True))

    @guarded
    def onDtmfEvent(self, prm: pj.OnDtmfEventParam) -> None:
        rtp = prm.method == pj.PJSUA_DTMF_METHOD_RFC2833
        timestamp = prm.timestamp if rtp else None
        if not self._answered:
            self._digits.ignore(timestamp)
        elif self._digits.is_new(timestamp, time.monotonic()):
            log.info("call %d: a digit by %s", self.number, "RTP event" if rtp else "SIP INFO")
            self._owner.tell(DigitReceived(self.number, prm.digit))

    @guarded
    def onCallTransferRequest(self, prm: pj.OnCallTransferRequestParam) -> None:
        prm.statusCode = pj.PJSIP_SC_DECLINE
        new = self._owner.transferred(self.number, prm.dstUri)
        if new is not None:
            prm.newCall = new
            prm.statusCode = pj.PJSIP_SC_ACCEPTED

    @guarded
    def onCallReplaceRequest(self, prm: pj.OnCallReplaceRequestParam) -> None:
        prm.statusCode = pj.PJSIP_SC_DECLINE
        new = self._owner.replaced(self.number, prm.rdata.wholeMsg)
        if new is not None:
            prm.newCall = new
            prm.statusCode = pj.PJSIP_SC_OK

    def _listen(self, event: pj.SipEvent) -> None:
        """Notice that the far side has said something: 100 Trying changes no state, and is enough."""
        if event.type == pj.PJSIP_EVENT_TSX_STATE and event.body.tsxState.type == pj.PJSIP_EVENT_RX_MSG:
            self._owner.heard(self.number)
            answer = event.body.tsxState.src.rdata.wholeMsg
            if self.registrant.only_encrypted and self.dialled and offers_clear_sound(answer):
                self._in_the_clear = True
            if self.dialled:
                self.redirection = redirection_of(answer) or self.redirection

    def connect(self, hearing: Hearing | None = None) -> None:
        """Join the call's audio to the door so far and no further, now and whenever it becomes active.

        The microphone is closed while the far side holds the call.

        Args:
            hearing: how far; None for as far as before.
        """
        if hearing is not None:
            self._hearing = hearing
        media = self.media()
        if media is not None:
            self._owner.join(
                self.number,
                media,
                speaker=self._hearing in {Hearing.SPEAKER, Hearing.TALK},
                microphone=self._hearing in {Hearing.MICROPHONE, Hearing.TALK} and not self._held,
                prompt=self._hearing is Hearing.PROMPT,
            )

    def media(self) -> pj.AudioMedia | None:
        """The call's audio at the bridge, or None while none flows in any direction."""
        return None if self.audio() is None else self.getAudioMedia(FIRST_ACTIVE)

    def audio(self) -> int | None:
        """The index of the stream that carries audio now. It counts rejected media, `info.media` does not."""
        stream = self._stream()
        return None if stream is None or stream.direction == pj.PJMEDIA_DIR_NONE else stream.number

    @property
    def talks(self) -> bool:
        """Whether both sides have agreed on the call."""
        return self.getInfo().state == pj.PJSIP_INV_STATE_CONFIRMED

    def _stream(self) -> _Stream | None:
        info = self.getInfo()  # kept while its media are looked at: they lie inside it
        for media in info.media:
            if media.type == pj.PJMEDIA_TYPE_AUDIO and media.status in _AGREED:
                held = media.status == pj.PJSUA_CALL_MEDIA_REMOTE_HOLD
                return _Stream(media.index, media.dir, held)
        return None

    def _notice_hold(self) -> None:
        stream = self._stream()
        held = stream is not None and stream.held
        if held != self._held:
            self._held = held
            self._owner.tell(CallHeld(self.number) if held else CallResumed(self.number))

    def watch(self, now: float) -> None:
        """Tell when sound stops to come from the far side, and when it comes again.

        Where SDP says that none is to come none is missed for a while, but on hold it matters who fills the
        silence. A stream that SDP has broken brings none.
        """
        if not self.talks:
            return
        stream = self._stream()
        if stream is not None and stream.direction == pj.PJMEDIA_DIR_NONE:
            self._say_quiet(True, 0.0)
            return
        patience = QUIET_SECONDS
        if stream is not None and stream.direction == pj.PJMEDIA_DIR_ENCODING:
            patience = ONE_WAY_SECONDS
        elif stream is not None:
            packets = self.getStreamStat(stream.number).rtcp.rxStat.pkt
            if packets != self._packets:
                self._packets = packets
                self._heard_at = now
        silent = now - self._heard_at
        self._say_quiet(silent >= patience, silent)

    def _say_quiet(self, quiet: bool, seconds: float) -> None:
        if quiet != self._quiet:
            self._quiet = quiet
            number = self.number
            self._owner.tell(SoundStopped(number, round(seconds, 3)) if quiet else SoundCame(number))

    def statistics(self) -> dict[str, Any] | None:
        """Codec and packet counts, or None while no media flows."""
        index = self.audio()
        if index is None:
            return None
        stream = self.getStreamInfo(index)
        counts = self.getStreamStat(index).rtcp
        return {
            "codec": f"{stream.codecName}/{stream.codecClockRate}",
            "secure": _ENCRYPTED.search(self.dump(True, "")) is not None,
            "rx": {"packets": counts.rxStat.pkt, "lost": counts.rxStat.loss},
            "tx": {"packets": counts.txStat.pkt, "lost": counts.txStat.loss},
        }
