"""pjsua2 behind verbs of our own: the only importer of it.

Rule: everything here runs on the SIP thread. Callbacks copy what they need and `tell`; no pjsua2 object
leaves this module, and a call is kept until DISCONNECTED was seen and dropped there.
"""

import contextlib
import functools
import gc
import logging
import os
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import pjsua2 as pj

from intercom.core.events import CallAnswered, CallEnded, CallOffered, CallRang, DigitReceived, HealthChanged
from intercom.core.guide import Tone
from intercom.sip.certificate import Trust, objection
from intercom.sip.config import LineConfig
from intercom.sip.digits import DigitFilter
from intercom.sip.registration import ConnectionLost, NotTrusted, RegistrationChanged, ServerSilent
from intercom.sip.targets import Server
from intercom.sip.tones import CADENCES
from intercom.sip.worker import Later

log = logging.getLogger(__name__)

CODECS = ("opus/48000/2", "G722/16000/1", "PCMA/8000/1", "PCMU/8000/1")
HIGHEST_PRIORITY = 255
MAX_CALLS = 8
FIRST_ACTIVE = -1
BRIDGE_HERTZ = 16000
NO_ECHO_CANCELLER = 0
ECHO_TAIL_MILLISECONDS = 200
COLLECT_SECONDS = 1.0
LINGER_SECONDS = 2.0
ADDRESS_SECONDS = 5.0
IDLE_COLLECT_SECONDS = 600.0
SILENCE_SECONDS = 2.0
"""How long a server may be silent to a call while there is another. It was sent three times by then."""
HANDSHAKE_SECONDS = 5.0
TLS_1_2_AND_1_3 = pj.PJ_SSL_SOCK_PROTO_TLS1_2 | pj.PJ_SSL_SOCK_PROTO_TLS1_3
UNKNOWN_AUTHORITY = pj.PJ_SSL_CERT_EUNTRUSTED | pj.PJ_SSL_CERT_EISSUER_NOT_FOUND
SYSTEM_FAILURES = range(120_000, 170_000)
"""pjlib's numbers for the system's errors (PJ_ERRNO_START_SYS)."""
SOUND = {
    "off": pj.PJMEDIA_SRTP_DISABLED,
    "optional": pj.PJMEDIA_SRTP_OPTIONAL,
    "mandatory": pj.PJMEDIA_SRTP_MANDATORY,
}
SOUND_KEYS = {"sdes": pj.PJMEDIA_SRTP_KEYING_SDES, "dtls": pj.PJMEDIA_SRTP_KEYING_DTLS_SRTP}
IN_THE_CLEAR = "the far side does not encrypt sound, which the settings demand: refused"
MOVE_SECONDS = 1.0
"""How long a call that could not be sent waits for another server."""

Tell = Callable[[Any], None]
Method = TypeVar("Method", bound=Callable[..., None])


# A binding that was granted (RFC 3261 section 10.3): a Contact whose time is not 0.
_CONTACT = re.compile(
    r"^(?:Contact|m)[ \t]*:(?!.*;[ \t]*expires[ \t]*=[ \t]*0+\b)", re.IGNORECASE | re.MULTILINE
)
# pjsip's own account of a call's media; what the far side says of itself never begins a line of it.
_ENCRYPTED = re.compile(r"^ +SRTP status: Active ", re.MULTILINE)
_IN_THE_CLEAR = re.compile(r"^m=audio [1-9]\S* RTP/AVPF?[ \t]", re.MULTILINE)
_NAME_ADDR = re.compile(
    r'(?:"(?:[^"\\]|\\.)*"|[^<>"]*)\s*<(?P<inner>[^<>"]*)>[^<>"]*|(?P<plain>[^<>"]*)', re.DOTALL
)


def _guarded(method: Method) -> Method:
    """Let no exception escape a callback: it would be lost, keep the call alive and abort at exit."""

    @functools.wraps(method)
    def guard(self: Any, prm: Any) -> None:
        try:
            method(self, prm)
        except Exception:
            log.exception("in %s", method.__qualname__)
            self.abandon()

    return guard  # type: ignore[return-value]


def _words(error: Exception) -> str:
    return f"{error.reason} ({error.status})" if isinstance(error, pj.Error) else str(error)


def _secured(trust: Trust) -> pj.TransportConfig:
    """A transport that sends nothing to a server that is not believed (pjsua2/patches/tls-trust.patch)."""
    config = pj.TransportConfig()
    config.tlsConfig.proto = TLS_1_2_AND_1_3
    config.tlsConfig.msecTimeout = int(HANDSHAKE_SECONDS * 1000)
    config.tlsConfig.verifyServer = True
    config.tlsConfig.CaListFile = trust.authorities
    config.tlsConfig.serverName = trust.host
    config.tlsConfig.fingerprint = trust.fingerprint
    return config


def _shown(prm: pj.OnTransportStateParam) -> bytes:
    """The certificate (DER) that the far end of a connection has shown."""
    return ssl.PEM_cert_to_DER_cert(prm.tlsInfo.remoteCertInfo.raw.strip())


def _clean(text: str) -> str:
    """Words of the network for log, journal and terminal: nothing in them can move a cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _own_address(address: str, port: int) -> str:
    """The address of this machine that faces another: sound is offered on it and taken from nowhere else."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, port))  # sends nothing
        return str(probe.getsockname()[0])


def address_of(uri: str) -> str:
    """Reduce a From or To value to `sip:user@host`: no display name, port or parameters.

    A display name may hold anything, also another address in brackets: it is skipped as RFC 3261 section 25
    spells it, and a value of any other form is nobody's address.
    """
    match = _NAME_ADDR.fullmatch(uri.strip())
    if match is None:
        return "sip:"
    bare = (match["inner"] or match["plain"]).partition(";")[0].partition("?")[0]
    scheme, _, rest = bare.partition(":")
    user, at, host = rest.rpartition("@")
    host = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    return f"{scheme.lower()}:{user}{at}{host.lower()}"


@dataclass(slots=True)
class _Unheard:
    """A call that no server has said a word to: whom it is for, and the servers it was sent to."""

    to: str
    sent_to: set[Server] = field(default_factory=set)


class _Call(pj.Call):
    """One call, known outside by its number."""

    def __init__(
        self,
        engine: "Engine",
        account: pj.Account,
        number: int,
        server: Server,
        call_id: int = pj.INVALID_ID,
    ) -> None:
        super().__init__(account, call_id)
        self.number = number
        self.dialled = call_id == pj.INVALID_ID
        self.server = server
        self._engine = engine
        self._digits = DigitFilter()
        self._in_the_clear = False

    def abandon(self) -> None:
        self._engine.end(self.number)

    @_guarded
    def onCallTsxState(self, prm: pj.OnCallTsxStateParam) -> None:
        self._listen(prm.e)

    @_guarded
    def onCallState(self, prm: pj.OnCallStateParam) -> None:
        self._listen(prm.e)
        info = self.getInfo()
        if info.state == pj.PJSIP_INV_STATE_EARLY and info.role == pj.PJSIP_ROLE_UAC:
            self._engine.tell(CallRang(self.number))
        elif info.state == pj.PJSIP_INV_STATE_CONFIRMED:
            if not self._in_the_clear:  # else pjsip is about to hang up
                self.connect(microphone=True)
                self._engine.answered(self.number)
        elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            reason = IN_THE_CLEAR if self._in_the_clear else _clean(info.lastReason)
            self._engine.ended(self.number, info.lastStatusCode, reason)

    @_guarded
    def onCallMediaState(self, prm: pj.OnCallMediaStateParam) -> None:
        info = self.getInfo()
        confirmed = info.state == pj.PJSIP_INV_STATE_CONFIRMED
        if self.connect(microphone=confirmed) and info.state == pj.PJSIP_INV_STATE_EARLY:
            self._engine.tell(CallRang(self.number, early_media=True))

    @_guarded
    def onDtmfEvent(self, prm: pj.OnDtmfEventParam) -> None:
        rtp = prm.method == pj.PJSUA_DTMF_METHOD_RFC2833
        if self._digits.is_new(prm.timestamp if rtp else None):
            log.info("call %d: a digit by %s", self.number, "RTP event" if rtp else "SIP INFO")
            self._engine.tell(DigitReceived(self.number, prm.digit))

    @_guarded
    def onCallTransferRequest(self, prm: pj.OnCallTransferRequestParam) -> None:
        prm.statusCode = pj.PJSIP_SC_DECLINE

    @_guarded
    def onCallReplaceRequest(self, prm: pj.OnCallReplaceRequestParam) -> None:
        prm.statusCode = pj.PJSIP_SC_DECLINE

    def _listen(self, event: pj.SipEvent) -> None:
        """Notice that the far side has said something: 100 Trying changes no state, and is enough."""
        if event.type == pj.PJSIP_EVENT_TSX_STATE and event.body.tsxState.type == pj.PJSIP_EVENT_RX_MSG:
            self._engine.heard(self.number)
            answer = event.body.tsxState.src.rdata.wholeMsg
            if self._engine.only_encrypted and self.dialled and _IN_THE_CLEAR.search(answer):
                self._in_the_clear = True

    def connect(self, *, microphone: bool) -> bool:
        """Join the call's active audio to the door; the microphone only once the call is answered."""
        if self.audio() is None:
            return False
        self._engine.join(self.getAudioMedia(FIRST_ACTIVE), microphone=microphone)
        return True

    def audio(self) -> int | None:
        """The index of the stream that carries audio now. It counts rejected media, `info.media` does not."""
        info = self.getInfo()  # kept while its media are looked at: they lie inside it
        for media in info.media:
            if media.type == pj.PJMEDIA_TYPE_AUDIO and media.status == pj.PJSUA_CALL_MEDIA_ACTIVE:
                return media.index
        return None


class _Account(pj.Account):
    """The account at one server. Calls reach it whoever they are for."""

    def __init__(self, engine: "Engine", server: Server) -> None:
        super().__init__()
        self._engine = engine
        self.server = server

    def abandon(self) -> None:
        pass

    @_guarded
    def onRegState(self, prm: pj.OnRegStateParam) -> None:
        bound = self.getInfo().regIsActive and _CONTACT.search(prm.rdata.wholeMsg) is not None
        expires = prm.expiration if bound else 0
        self._engine.registered(RegistrationChanged(self.server, prm.code, _clean(prm.reason), expires))

    @_guarded
    def onIncomingCall(self, prm: pj.OnIncomingCallParam) -> None:
        self._engine.offered(self, prm.callId)


class _Endpoint(pj.Endpoint):
    """The library itself. It tells of connections."""

    def __init__(self, engine: "Engine") -> None:
        super().__init__()
        self._engine = engine

    def abandon(self) -> None:
        pass

    @_guarded
    def onTransportState(self, prm: pj.OnTransportStateParam) -> None:
        if prm.state == pj.PJSIP_TP_STATE_CONNECTED:
            self._engine.connected(int(prm.hnd))
        elif prm.state == pj.PJSIP_TP_STATE_DISCONNECTED:
            self._engine.disconnected(int(prm.hnd), prm)


class Engine:
    """A pjsua2 user agent with one account, up to eight calls and one sound device."""

    def __init__(self, config: LineConfig, tell: Tell, later: Later) -> None:
        """Start the user agent. Blocks for some 20 ms.

        Args:
            config: what to build.
            tell: takes events and registration results; called on the SIP thread.
            later: runs a job on the SIP thread after some seconds.

        Raises:
            pjsua2.Error: pjsip cannot start.
        """
        self.tell = tell
        self._config = config
        self._later = later
        self._calls: dict[int, _Call] = {}
        self._unheard: dict[int, _Unheard] = {}
        self._servers: Sequence[Server] = ()
        self._server: Server | None = None
        self._own = ""
        self._connections: set[int] = set()
        self._distrust = ""
        self._unencrypted = False
        self.only_encrypted = config.account.sound == "mandatory"
        self._offers = 0
        self._closing = False
        self._sound = False
        self._sound_fault: str | None = None
        self._tone: Tone = Tone.SILENCE
        self._endpoint = _Endpoint(self)
        settings = pj.EpConfig()
        settings.logConfig.level = settings.logConfig.consoleLevel = 0
        settings.logConfig.msgLogging = 0
        settings.uaConfig.threadCnt = 0
        settings.uaConfig.mainThreadOnly = True
        settings.uaConfig.maxCalls = MAX_CALLS
        settings.uaConfig.userAgent = self._config.agent
        settings.medConfig.threadCnt = 0
        settings.medConfig.hasIoqueue = False
        settings.medConfig.noVad = True  # a pause in speech must not look like a dead line
        settings.medConfig.clockRate = BRIDGE_HERTZ
        settings.medConfig.ecTailLen = ECHO_TAIL_MILLISECONDS if self._config.device else NO_ECHO_CANCELLER
        settings.medConfig.ecOptions = pj.PJMEDIA_ECHO_WEBRTC_AEC3
        self._endpoint.libCreate()
        self._endpoint.libInit(settings)
        self.wake_address = ("127.0.0.1", self._listen())
        if self._config.account.transport == "tcp":
            self._endpoint.transportCreate(pj.PJSIP_TRANSPORT_TCP, pj.TransportConfig())
        if self._config.account.trust is not None:
            self._endpoint.transportCreate(pj.PJSIP_TRANSPORT_TLS, _secured(self._config.account.trust))
        self._endpoint.audDevManager().setNoDev()
        self._endpoint.libStart()

        for codec in self._endpoint.codecEnum2():
            self._endpoint.codecSetPriority(codec.codecId, 0)
        for rank, codec_id in enumerate(CODECS):
            self._endpoint.codecSetPriority(codec_id, HIGHEST_PRIORITY - rank)
        self._tones = pj.ToneGenerator()
        self._tones.createToneGenerator(BRIDGE_HERTZ)
        self._account: _Account | None = None
        self._later(IDLE_COLLECT_SECONDS, self._collect_idle)
        self._later(ADDRESS_SECONDS, self._follow_address)

    def _listen(self) -> int:
        """Open the UDP transport, on another port if the wanted one is taken: a bell must ring."""
        transport = pj.TransportConfig()
        transport.port = self._config.port
        if self._config.account.trust is not None:
            transport.boundAddress = "127.0.0.1"  # only for the waker: nothing may leave in the clear
        try:
            opened = self._endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
        except pj.Error as error:
            if not transport.port:
                raise
            transport.port = 0
            opened = self._endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
            wanted = f"UDP port {self._config.port} cannot be used ({error.reason}); any other is used"
            self.tell(HealthChanged("sip", wanted))
        return int(self._endpoint.transportGetInfo(opened).localAddress.rpartition(":")[2])

    def _account_config(self, server: Server, own: str) -> pj.AccountConfig:
        account = self._config.account
        config = pj.AccountConfig()
        config.idUri = f'"{self._config.name}" <{account.uri}>'
        config.regConfig.registrarUri = account.registrar
        config.regConfig.registerOnAdd = False
        config.regConfig.timeoutSec = account.expires_seconds
        config.regConfig.retryIntervalSec = 0
        config.regConfig.firstRetryIntervalSec = 0
        config.sipConfig.authCreds.append(
            pj.AuthCredInfo("digest", "*", account.username, 0, account.password)
        )
        # Every request goes to this server; `hide` keeps the route out of the message.
        config.sipConfig.proxies.append(
            f"sip:{server.address}:{server.port};transport={server.transport};lr;hide"
        )
        config.callConfig.timerUse = pj.PJSUA_SIP_TIMER_OPTIONAL
        config.mediaConfig.srtpUse = SOUND[account.sound]
        config.mediaConfig.srtpSecureSignaling = 0
        config.mediaConfig.srtpOpt.keyings.append(SOUND_KEYS[account.sound_keys])
        if account.trust is not None:
            (other,) = SOUND_KEYS.keys() - {account.sound_keys}
            config.mediaConfig.srtpOpt.keyings.append(SOUND_KEYS[other])  # taken if they are offered
        config.mediaConfig.transportConfig.boundAddress = own
        return config

    # What the worker needs

    def poll(self, seconds: float) -> None:
        """Handle SIP, RTP and pjsip's timers; wait for them no longer than `seconds`."""
        self._endpoint.libHandleEvents(max(1, int(seconds * 1000)))

    def close(self) -> None:
        """End the calls, un-register, and free everything; about a second."""
        self._closing = True
        self._endpoint.hangupAllCalls()
        self._calls.clear()
        self._unheard.clear()
        if self._account is not None:
            self._account.shutdown()
        del self._tones
        gc.collect()
        self._endpoint.libDestroy()

    # Registration

    def admit(self, servers: Sequence[Server]) -> None:
        """Take requests from these servers, any of which may have a call for us, and place calls by them."""
        self._servers = servers
        self._set_admission()

    def _set_admission(self) -> None:
        """Those that calls go through stay admitted until these are over."""
        servers = {*self._servers, *(call.server for call in self._calls.values())}
        if self._server is not None:
            servers.add(self._server)
        pj.Admission.set([f"{server.address}:{server.port}" for server in servers])

    def register(self, server: Server) -> None:
        """Send a REGISTER to this server, now the one in use; `RegistrationChanged` tells the answer."""
        try:
            if not self._move(server) and self._account is not None:
                self._account.setRegistration(True)
        except (pj.Error, OSError) as error:
            self.tell(RegistrationChanged(server, pj.PJSIP_SC_SERVICE_UNAVAILABLE, _words(error), 0))
        self._call_again()

    def registered(self, news: RegistrationChanged) -> None:
        """Tell what has become of a REGISTER.

        That a connection failed is said a moment later: TLS knows why, and pjsip tells of that after it.
        """
        if news.status == pj.PJSIP_SC_SERVICE_UNAVAILABLE:
            self._later(0.0, functools.partial(self.tell, news))
        else:
            self.tell(news)

    def _move(self, server: Server) -> bool:
        """Make the account anew if the server or this machine's address is another; False if not.

        The account's Contact and the address of its sound stay what they were made with.
        """
        own = _own_address(server.address, server.port)
        if self._account is not None and (server, own) == (self._server, self._own):
            return False
        if self._account is not None:
            log.warning("the server in use and the address of this machine: %s and %s", server, own)
            if server != self._server:
                self._leave(self._account, server)
            self._account.shutdown()
            self._account = None  # destroyed here: later it would shut down the next
            self._connections.clear()
        self._server, self._own = server, own
        account = _Account(self, server)
        account.create(self._account_config(server, own))
        self._account = account
        self._set_admission()
        account.setRegistration(True)
        return True

    def _leave(self, account: _Account, server: Server) -> None:
        """Forget the registration instead of un-registering: servers of one site share it.

        A server that was silent would get the un-REGISTER when it is back, and delete what the next has.
        """
        config = self._account_config(server, self._own)
        config.regConfig.disableRegOnModify = True
        account.modify(config)

    def connected(self, connection: int) -> None:
        """Know a connection as one that matters. Over TLS the far end was verified before."""
        self._connections.add(connection)
        self._distrust = ""

    def disconnected(self, connection: int, prm: pj.OnTransportStateParam) -> None:
        """Register anew over a new connection: the server reaches us over the one that is gone.

        One that belongs to a server that was left does not matter.
        """
        if self._server is None or self._closing:
            return
        if connection in self._connections:
            self._connections.discard(connection)
            self.tell(ConnectionLost(self._server))
        elif (reason := self._refusal(prm)) and not self._connections:  # unless a good connection stands
            self._distrust = reason
            self.tell(NotTrusted(self._server, reason))

    def _refusal(self, prm: pj.OnTransportStateParam) -> str:
        """Why there is no connection, where TLS is the reason; else empty: pjsip's own answer says it."""
        trust, faults = self._config.account.trust, prm.tlsInfo.verifyStatus
        if trust is None or prm.type != "TLS":
            return ""
        if faults:
            unknown = bool(faults & UNKNOWN_AUTHORITY)
            other = "; ".join(prm.tlsInfo.verifyMsgs)
            return objection(_shown(prm), trust, datetime.now(UTC), unknown=unknown, other=other)
        if prm.lastError and prm.lastError not in SYSTEM_FAILURES:
            return f"takes no TLS as it should be ({_clean(self._endpoint.utilStrError(prm.lastError))})"
        return ""

    def _follow_address(self) -> None:
        """Notice that this machine has another address: DHCP, or a cable for the wireless."""
        self._later(ADDRESS_SECONDS, self._follow_address)
        if self._server is not None and not self._calls:
            with contextlib.suppress(OSError, pj.Error):  # no network now: it may come back as it was
                self._move(self._server)

    # Calls

    def dial(self, number: int, to: str) -> None:
        """Place a call; it ends with `CallEnded` also when it cannot even be sent.

        A server that says nothing to it for two seconds is told as `ServerSilent`; when another one is then
        given to `register`, the call goes there instead.
        """
        if self._account is None:
            self.tell(
                CallEnded(number, pj.PJSIP_SC_SERVICE_UNAVAILABLE, "the registrar's address is unknown")
            )
            return
        self._unheard[number] = _Unheard(to)
        self._place(number, self._account)

    def _place(self, number: int, account: _Account) -> None:
        unheard, server = self._unheard[number], account.server
        unheard.sent_to.add(server)
        call = _Call(self, account, number, server)
        setting = pj.CallOpParam(True)
        setting.opt.textCount = 0
        setting.opt.videoCount = 0
        self._calls[number] = call
        self._later(SILENCE_SECONDS, functools.partial(self._miss, number, server))
        try:
            call.makeCall(unheard.to, setting)
        except pj.Error as error:
            if number in self._calls:
                self.ended(number, pj.PJSIP_SC_SERVICE_UNAVAILABLE, _words(error))

    def answered(self, number: int) -> None:
        """Tell that the far side talks with us, and that it may where only encrypted sound is permitted."""
        if self._unencrypted:
            self._unencrypted = False
            self.tell(HealthChanged("encryption", None))
        self.tell(CallAnswered(number))

    def heard(self, number: int) -> None:
        """A server has taken the call: whatever becomes of it, no other gets it."""
        self._unheard.pop(number, None)

    def _miss(self, number: int, server: Server) -> bool:
        """Tell that a server says nothing to a call, if another might; returns whether it was told."""
        unheard = self._unheard.get(number)
        if unheard is None or server != self._server or unheard.sent_to >= set(self._servers):
            return False
        log.warning("call %d: %s is silent", number, server)
        self.tell(ServerSilent(server))
        return True

    def _call_again(self) -> None:
        """Send the calls that nobody has said a word to by the server now in use, once."""
        for number, unheard in list(self._unheard.items()):
            if self._account is None or self._account.server in unheard.sent_to:
                continue
            old = self._calls.pop(number, None)
            if old is not None:
                with contextlib.suppress(pj.Error):
                    old.hangup(pj.CallOpParam())  # the CANCEL follows the first word of the server, if ever
            del old
            self._place(number, self._account)

    def offered(self, account: _Account, call_id: int) -> None:
        """Take an INVITE: refuse it at once unless its sender may call, else ask the core."""
        self._offers -= 1
        call = _Call(self, account, self._offers, account.server, call_id)
        self._calls[self._offers] = call
        peer = _clean(address_of(call.getInfo().remoteUri))
        if self._config.permits(peer):
            self.tell(CallOffered(call.number, peer))
        else:
            log.info("refused a call from %s: not permitted by the settings", peer)
            self.respond(call.number, pj.PJSIP_SC_FORBIDDEN)

    def respond(self, number: int, status: int) -> None:
        """Answer an offered call: 180, 200, or a refusal."""
        call = self._calls.get(number)
        if call is not None:
            prm = pj.CallOpParam(True)
            prm.opt.textCount = 0
            prm.opt.videoCount = 0
            prm.statusCode = status
            try:
                call.answer(prm)
            except pj.Error as error:
                log.warning("call %d: %d not sent: %s", number, status, _words(error))
                self.end(number)

    def end(self, number: int) -> None:
        """Hang up, whatever state the call is in. A call that is gone is no error."""
        waits = self._unheard.pop(number, None) is not None
        call = self._calls.get(number)
        if call is None:
            if waits:
                self.tell(CallEnded(number, pj.PJSIP_SC_REQUEST_TERMINATED, "Request Terminated"))
        else:
            try:
                call.hangup(pj.CallOpParam())
            except pj.Error as error:
                self.ended(number, pj.PJSIP_SC_INTERNAL_SERVER_ERROR, _words(error))

    def ended(self, number: int, status: int, reason: str) -> None:
        """Drop a call that is over. Its object dies here, on this thread, before its slot is used again.

        One that got no word out of its server waits for another server, if there is any.
        """
        call = self._calls.pop(number, None)
        if call is None:
            return
        self._set_admission()
        self._rest()
        self._later(COLLECT_SECONDS, gc.collect)
        if self._miss(number, call.server):
            self._later(MOVE_SECONDS, functools.partial(self._give_up, number, status, reason))
        else:
            self._unheard.pop(number, None)
            self.tell(CallEnded(number, status, self._explain(call, status, reason)))

    def _explain(self, call: _Call, status: int, reason: str) -> str:
        """Say more than pjsip where protection is why a call that we placed has failed."""
        if not call.dialled:
            return reason
        if status == pj.PJSIP_SC_SERVICE_UNAVAILABLE and self._distrust:
            return f"the server {self._distrust}"
        if self.only_encrypted and status == pj.PJSIP_SC_NOT_ACCEPTABLE_HERE:
            if reason != IN_THE_CLEAR:
                reason = f"the far side takes no call with encrypted sound ({reason})"
            self._unencrypted = True
            self.tell(HealthChanged("encryption", reason))
        return reason

    def _give_up(self, number: int, status: int, reason: str) -> None:
        if number not in self._calls and self._unheard.pop(number, None) is not None:
            self.tell(CallEnded(number, status, reason))

    def statistics(self, number: int) -> dict[str, Any] | None:
        """Codec and packet counts of a call, or None while no media flows."""
        call = self._calls.get(number)
        index = None if call is None else call.audio()
        if call is None or index is None:
            return None
        stream = call.getStreamInfo(index)
        counts = call.getStreamStat(index).rtcp
        return {
            "codec": f"{stream.codecName}/{stream.codecClockRate}",
            "secure": _ENCRYPTED.search(call.dump(True, "")) is not None,
            "rx": {"packets": counts.rxStat.pkt, "lost": counts.rxStat.loss},
            "tx": {"packets": counts.txStat.pkt, "lost": counts.txStat.loss},
        }

    # Sound

    def play(self, tone: Tone) -> None:
        """Play a tone at the door in place of the one before."""
        self._tone = tone
        self._tones.stop()
        cadence = CADENCES.get(tone)
        if cadence is None:
            self._rest()
            return
        self._open()
        self._tones.startTransmit(self._speaker())
        beeps = pj.ToneDescVector()
        for beep in cadence.beeps:
            element = pj.ToneDesc()
            element.freq1, element.on_msec, element.off_msec = beep.hertz, beep.on, beep.off
            beeps.append(element)
        self._tones.play(beeps, cadence.repeats)
        if not cadence.repeats:
            self._later(cadence.seconds, functools.partial(self._played, tone))

    def join(self, media: pj.AudioMedia, *, microphone: bool) -> None:
        """Let the far end be heard at the door and, once answered, the door at the far end."""
        self._open()
        media.startTransmit(self._speaker())
        if microphone:
            self._endpoint.audDevManager().getCaptureDevMedia().startTransmit(media)

    def _speaker(self) -> pj.AudioMedia:
        return self._endpoint.audDevManager().getPlaybackDevMedia()

    def _played(self, tone: Tone) -> None:
        if self._tone is tone:
            self._tone = Tone.SILENCE
            self._rest()

    def _open(self) -> None:
        """Open the sound device, or a silent clock in its place so that calls and digits go on."""
        if self._sound:
            return
        self._sound = True
        devices = self._endpoint.audDevManager()
        fault = None
        try:
            if self._config.device is None:
                devices.setNullDev()
            else:
                name = self._config.device()
                os.environ["PJ_ALSA_DEVICE"] = name  # deploy/pjsua2/patches/alsa-one-device.patch
                devices.refreshDevs()
                index = devices.lookupDev("ALSA", name)
                devices.setCaptureDev(index)
                devices.setPlaybackDev(index)
        except (pj.Error, OSError, ValueError) as error:
            fault = _words(error)
            devices.setNullDev()
        if fault != self._sound_fault:
            self._sound_fault = fault
            self.tell(HealthChanged("sound", fault))

    def _rest(self) -> None:
        """Close the sound device once neither a tone nor a call needs it."""
        if (
            self._sound
            and self._tone is Tone.SILENCE
            and all(call.audio() is None for call in self._calls.values())
        ):
            self._sound = False
            self._endpoint.audDevManager().setNoDev()

    def _collect_idle(self) -> None:
        # Automatic collection is off in the whole process: it could run on another thread and destroy a
        # pjsua2 object there, which aborts.
        gc.collect()
        self._later(IDLE_COLLECT_SECONDS, self._collect_idle)
