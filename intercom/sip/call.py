"""One call as pjsua2 tells of it.

Rule: a callback copies what it needs and tells its owner; it decides nothing.
"""

import logging
import re
from typing import Any, Protocol

import pjsua2 as pj

from intercom.core.events import CallRang, DigitReceived
from intercom.core.policy import Mode
from intercom.sip.callbacks import guarded
from intercom.sip.digits import DigitFilter
from intercom.sip.targets import Server
from intercom.sip.wire import offers_clear_sound, printable

log = logging.getLogger(__name__)

FIRST_ACTIVE = -1
IN_THE_CLEAR = "the far side does not encrypt sound, which the settings demand: refused"

# pjsip's own account of a call's media; what the far side says of itself never begins a line of it.
_ENCRYPTED = re.compile(r"^ +SRTP status: Active ", re.MULTILINE)


class Owner(Protocol):
    """Who is told of calls. All of it runs on the SIP thread."""

    only_encrypted: bool

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

    def join(self, media: pj.AudioMedia, *, speaker: bool, microphone: bool) -> None:
        """Join a call's sound to the door."""


class Call(pj.Call):
    """One call, known outside by its number."""

    def __init__(
        self,
        owner: Owner,
        account: pj.Account,
        number: int,
        server: Server,
        call_id: int = pj.INVALID_ID,
    ) -> None:
        super().__init__(account, call_id)
        self.number = number
        self.dialled = call_id == pj.INVALID_ID
        self.mode = Mode.TALK
        self.server = server
        self._owner = owner
        self._digits = DigitFilter()
        self._in_the_clear = False

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
            if not self._in_the_clear:  # else pjsip is about to hang up
                self.connect(microphone=True)
                self._owner.answered(self.number)
        elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            reason = IN_THE_CLEAR if self._in_the_clear else printable(info.lastReason)
            self._owner.ended(self.number, info.lastStatusCode, reason)

    @guarded
    def onCallMediaState(self, prm: pj.OnCallMediaStateParam) -> None:
        info = self.getInfo()
        confirmed = info.state == pj.PJSIP_INV_STATE_CONFIRMED
        if self.connect(microphone=confirmed) and info.state == pj.PJSIP_INV_STATE_EARLY:
            self._owner.tell(CallRang(self.number, early_media=True))

    @guarded
    def onDtmfEvent(self, prm: pj.OnDtmfEventParam) -> None:
        rtp = prm.method == pj.PJSUA_DTMF_METHOD_RFC2833
        if self._digits.is_new(prm.timestamp if rtp else None):
            log.info("call %d: a digit by %s", self.number, "RTP event" if rtp else "SIP INFO")
            self._owner.tell(DigitReceived(self.number, prm.digit))

    @guarded
    def onCallTransferRequest(self, prm: pj.OnCallTransferRequestParam) -> None:
        prm.statusCode = pj.PJSIP_SC_DECLINE

    @guarded
    def onCallReplaceRequest(self, prm: pj.OnCallReplaceRequestParam) -> None:
        prm.statusCode = pj.PJSIP_SC_DECLINE

    def _listen(self, event: pj.SipEvent) -> None:
        """Notice that the far side has said something: 100 Trying changes no state, and is enough."""
        if event.type == pj.PJSIP_EVENT_TSX_STATE and event.body.tsxState.type == pj.PJSIP_EVENT_RX_MSG:
            self._owner.heard(self.number)
            answer = event.body.tsxState.src.rdata.wholeMsg
            if self._owner.only_encrypted and self.dialled and offers_clear_sound(answer):
                self._in_the_clear = True

    def connect(self, *, microphone: bool) -> bool:
        """Join the call's audio to the door as its mode says; the microphone only once it is answered."""
        if self.audio() is None:
            return False
        self._owner.join(
            self.getAudioMedia(FIRST_ACTIVE),
            speaker=self.mode is not Mode.LISTEN,
            microphone=microphone and self.mode is not Mode.ANNOUNCE,
        )
        return True

    def audio(self) -> int | None:
        """The index of the stream that carries audio now. It counts rejected media, `info.media` does not."""
        info = self.getInfo()  # kept while its media are looked at: they lie inside it
        for media in info.media:
            if media.type == pj.PJMEDIA_TYPE_AUDIO and media.status == pj.PJSUA_CALL_MEDIA_ACTIVE:
                return media.index
        return None

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
