"""pjsua2 behind verbs of our own.

Rule: everything here runs on the SIP thread. Callbacks copy what they need and `tell`. No pjsua2 object gets
past the modules behind this one, and a call is kept until DISCONNECTED was seen and dropped there.
"""

import contextlib
import functools
import gc
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pjsua2 as pj

from intercom.core.actions import Presence, ShowPresence
from intercom.core.events import (
    CallAnswered,
    CallEnded,
    CallOffered,
    CallReplaced,
    CallTransferred,
    HealthChanged,
    MessageReceived,
)
from intercom.core.guide import Tone
from intercom.core.policy import Mode
from intercom.sip.account import Account, account_config, own_address
from intercom.sip.call import IN_THE_CLEAR, Call
from intercom.sip.callbacks import guarded, words
from intercom.sip.config import LineConfig
from intercom.sip.letter import ACCEPTED, judge
from intercom.sip.outbox import MessageAnswered
from intercom.sip.registration import ConnectionLost, NotTrusted, RegistrationChanged, ServerSilent
from intercom.sip.sound import BRIDGE_HERTZ, Sound
from intercom.sip.targets import Server
from intercom.sip.transports import refusal, secured
from intercom.sip.wire import address_of, asserted_in, diverted_by, from_of, printable, transfer_target
from intercom.sip.worker import Later

log = logging.getLogger(__name__)

CODECS = ("opus/48000/2", "G722/16000/1", "PCMA/8000/1", "PCMU/8000/1")
HIGHEST_PRIORITY = 255
MAX_CALLS = 8
NO_ECHO_CANCELLER = 0
ECHO_TAIL_MILLISECONDS = 200
COLLECT_SECONDS = 1.0
ADDRESS_SECONDS = 5.0
IDLE_COLLECT_SECONDS = 600.0
SILENCE_SECONDS = 2.0
"""How long a server may be silent to a call while there is another. It was sent three times by then."""
WATCH_SECONDS = 0.5
"""How often a call is asked whether sound comes. There is a call then, and the thread awake for its sound."""
MOVE_SECONDS = 1.0
"""How long a call that could not be sent waits for another server."""

Tell = Callable[[Any], None]


@dataclass(slots=True)
class _Unheard:
    """A call that no server has said a word to: whom it is for, and the servers it was sent to."""

    to: str
    sent_to: set[Server] = field(default_factory=set)


class _Endpoint(pj.Endpoint):
    """The library itself. It tells of connections."""

    def __init__(self, engine: "Engine") -> None:
        super().__init__()
        self._engine = engine

    def abandon(self) -> None:
        pass

    @guarded
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
        self._calls: dict[int, Call] = {}
        self._unheard: dict[int, _Unheard] = {}
        self._unanswered: dict[tuple[str, str], list[int]] = {}
        self._presence = ShowPresence(Presence.OPEN, "")
        self._servers: Sequence[Server] = ()
        self._admitted: set[Server] = set()
        self._server: Server | None = None
        self._own = ""
        self._connections: set[int] = set()
        self._distrust = ""
        self._unencrypted = False
        self.only_encrypted = config.account.sound == "mandatory"
        self._offers = 0
        self._mixed: frozenset[int] = frozenset()
        self._watching = False
        self._closing = False
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
            self._endpoint.transportCreate(pj.PJSIP_TRANSPORT_TLS, secured(self._config.account.trust))
        self._endpoint.audDevManager().setNoDev()
        self._endpoint.libStart()

        for codec in self._endpoint.codecEnum2():
            self._endpoint.codecSetPriority(codec.codecId, 0)
        for rank, codec_id in enumerate(CODECS):
            self._endpoint.codecSetPriority(codec_id, HIGHEST_PRIORITY - rank)
        self._sound = Sound(self._endpoint.audDevManager(), config.device, self._sounds, tell, later)
        self._account: Account | None = None
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
        del self._sound
        gc.collect()
        self._endpoint.libDestroy()

    # Registration

    def admit(self, servers: Sequence[Server]) -> None:
        """Take requests from these servers, any of which may have a call for us, and place calls by them."""
        self._servers = servers
        self._set_admission()

    def _set_admission(self) -> None:
        """Those that calls go through stay admitted until these are over."""
        self._admitted = {*self._servers, *(call.server for call in self._calls.values())}
        if self._server is not None:
            self._admitted.add(self._server)
        pj.Admission.set(
            [f"{server.address}:{server.port};transport={server.transport}" for server in self._admitted]
        )

    def register(self, server: Server) -> None:
        """Send a REGISTER to this server, now the one in use; `RegistrationChanged` tells the answer."""
        try:
            if not self._move(server) and self._account is not None:
                self._account.setRegistration(True)
        except (pj.Error, OSError) as error:
            self.tell(RegistrationChanged(server, pj.PJSIP_SC_SERVICE_UNAVAILABLE, words(error), 0))
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
        own = own_address(server.address, server.port)
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
        account = Account(self, server, self._config.account.expires_seconds)
        account.create(account_config(self._config.name, self._config.account, server, own))
        account.show(self._presence)
        self._account = account
        self._set_admission()
        account.setRegistration(True)
        return True

    def _leave(self, account: Account, server: Server) -> None:
        """Forget the registration instead of un-registering: servers of one site share it.

        A server that was silent would get the un-REGISTER when it is back, and delete what the next has.
        """
        config = account_config(self._config.name, self._config.account, server, self._own)
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
        elif not self._connections:  # while a good connection stands, another does not matter
            reason = refusal(self._endpoint, self._config.account.trust, prm)
            if reason:
                self._distrust = reason
                self.tell(NotTrusted(self._server, reason))

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

    def _place(self, number: int, account: Account) -> None:
        unheard, server = self._unheard[number], account.server
        unheard.sent_to.add(server)
        call = Call(self, account, number, server)
        setting = pj.CallOpParam(True)
        setting.opt.textCount = 0
        setting.opt.videoCount = 0
        self._calls[number] = call
        self._later(SILENCE_SECONDS, functools.partial(self._miss, number, server))
        try:
            call.makeCall(unheard.to, setting)
        except pj.Error as error:
            if number in self._calls:
                self.ended(number, pj.PJSIP_SC_SERVICE_UNAVAILABLE, words(error))

    def transferred(self, number: int, refer_to: str) -> Call | None:
        """Take a REFER of the far side, to somebody whom the settings know. pjsip places the call.

        The call in its place, like an offered one, has a number of its own and is told as `CallTransferred`.
        """
        target = transfer_target(refer_to)
        peer = "" if target is None else printable(target)
        if not self._may_move(number, peer):
            log.warning("call %d: refused to be transferred to %s", number, peer or "more than an address")
            return None
        new = self._instead(number)
        self.tell(CallTransferred(number, new.number, peer))
        self._later(0.0, functools.partial(self._look_after, new.number))
        return new

    def replaced(self, number: int, invite: str) -> Call | None:
        """Take an INVITE with Replaces (RFC 3891) from a peer whom the settings know. pjsip answers it."""
        peer, *others = map(printable, (from_of(invite), *asserted_in(invite)))
        if not self._may_move(number, peer, *others):
            log.warning("call %d: refused to be taken over by %s", number, peer)
            return None
        new = self._instead(number)
        new.dialled = False
        self.tell(CallReplaced(number, new.number, peer))
        return new

    def _may_move(self, number: int, *peers: str) -> bool:
        call = self._calls.get(number)
        return (
            call is not None
            and call.talks
            and not any(other.instead_of == number for other in self._calls.values())
            and all(map(self._config.may_talk, peers))
        )

    def _instead(self, number: int) -> Call:
        """The object of a call that is to take another's place; pjsip fills it in after the callback."""
        assert self._account is not None, "there is a call"
        self._offers -= 1
        new = Call(self, self._account, self._offers, self._calls[number].server, instead_of=number)
        new.mode = self._calls[number].mode
        self._calls[new.number] = new
        return new

    def _look_after(self, number: int) -> None:
        """Tell that pjsip could not place the call of a transfer: it says so to the far side alone."""
        call = self._calls.get(number)
        if call is not None and call.getId() == pj.INVALID_ID:
            self.ended(number, pj.PJSIP_SC_SERVICE_UNAVAILABLE, "the call could not be placed")

    def answered(self, number: int) -> None:
        """Tell that the far side talks with us, and that it may where only encrypted sound is permitted."""
        if self._unencrypted:
            self._unencrypted = False
            self.tell(HealthChanged("encryption", None))
        self.tell(CallAnswered(number))
        if not self._watching:
            self._watching = True
            self._watch()

    def _watch(self) -> None:
        """Look after the sound of the calls, as long as there are any."""
        self._watching = bool(self._calls)
        if self._watching:
            self._later(WATCH_SECONDS, self._watch)
            now = time.monotonic()
            for call in list(self._calls.values()):
                with contextlib.suppress(pj.Error):  # one that is not placed yet, or just over
                    call.watch(now)

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

    def offered(self, account: Account, call_id: int, invite: str) -> None:
        """Take an INVITE: refuse it at once unless its sender may call, else ask the core.

        Everybody whom it names as its caller must be permitted, and in the same way.
        """
        self._offers -= 1
        call = Call(self, account, self._offers, account.server, call_id)
        self._calls[self._offers] = call
        named = [printable(address_of(call.getInfo().remoteUri)), *map(printable, asserted_in(invite))]
        ways = {self._config.caller(name) for name in named}
        if len(ways) == 1 and None not in ways:
            self.tell(CallOffered(call.number, named[-1], printable(diverted_by(invite))))
        else:
            log.info("refused a call from %s: not permitted by the settings", ", ".join(named))
            self.respond(call.number, pj.PJSIP_SC_FORBIDDEN)

    def answer(self, number: int, mode: Mode) -> None:
        """Accept an offered call. An offer in which nothing fits is refused by pjsip (488)."""
        call = self._calls.get(number)
        if call is not None:
            call.mode = mode
            self.respond(number, pj.PJSIP_SC_OK)

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
                log.warning("call %d: %d not sent: %s", number, status, words(error))
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
                self.ended(number, pj.PJSIP_SC_INTERNAL_SERVER_ERROR, words(error))

    def ended(self, number: int, status: int, reason: str) -> None:
        """Drop a call that is over. Its object dies here, on this thread, before its slot is used again.

        One that got no word out of its server waits for another server, if there is any.
        """
        call = self._calls.pop(number, None)
        if call is None:
            return
        self._mixed -= {number}
        self._set_admission()
        self._sound.rest()
        self._later(COLLECT_SECONDS, gc.collect)
        if self._miss(number, call.server):
            self._later(MOVE_SECONDS, functools.partial(self._give_up, number, status, reason))
        else:
            self._unheard.pop(number, None)
            self.tell(CallEnded(number, status, self._explain(call, status, reason)))

    def _explain(self, call: Call, status: int, reason: str) -> str:
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
        return None if call is None else call.statistics()

    # Messages and presence

    def write(self, number: int, to: str, text: str) -> None:
        """Send a MESSAGE; `MessageAnswered` tells what became of it."""
        waiting = self._unanswered.setdefault((to, text), [])
        waiting.append(number)
        try:
            if self._account is None:
                self.answered_message(to, text, pj.PJSIP_SC_SERVICE_UNAVAILABLE, "no server is known")
            else:
                self._account.write(to, text)
        except pj.Error as error:
            self.answered_message(to, text, pj.PJSIP_SC_INTERNAL_SERVER_ERROR, words(error))

    def answered_message(self, to: str, text: str, status: int, reason: str) -> None:
        """Tell what became of the oldest of the messages that say this to somebody."""
        if numbers := self._unanswered.get((to, text)):
            self.tell(MessageAnswered(numbers.pop(0), status, reason))
            if not numbers:
                del self._unanswered[to, text]

    def forget(self, number: int) -> None:
        """Nobody waits any more for what becomes of a message."""
        for what, numbers in list(self._unanswered.items()):
            if number in numbers:
                numbers.remove(number)
            if not numbers:
                del self._unanswered[what]

    def written(self, prm: pj.OnInstantMessageParam) -> int:
        """Judge a MESSAGE and tell it if it may come in; returns the status that it is answered with."""
        message = prm.rdata.wholeMsg
        named = [printable(address_of(prm.fromUri)), *map(printable, asserted_in(message))]
        permitted = all(self._config.caller(name) is not None for name in named)
        status = judge(prm.contentType, prm.msgBody, permitted=permitted)
        if status == ACCEPTED:
            self.tell(MessageReceived(named[-1], prm.msgBody, self._is_secure(prm.rdata.srcAddress)))
        else:
            log.info("refused a message from %s: %d", ", ".join(named), status)
        return status

    def _is_secure(self, source: str) -> bool:
        """Whether what comes from an `address:port` can have come over TLS only."""
        host = source.rpartition(":")[0].strip("[]")
        ways = {server.transport for server in self._admitted if server.address == host}
        return ways == {"tls"}

    def show(self, presence: ShowPresence) -> None:
        """Have watchers told how the station is."""
        self._presence = presence
        if self._account is not None:
            try:
                self._account.show(presence)
            except pj.Error as error:
                log.warning("watchers are not told: %s", words(error))

    # Sound

    def play(self, tone: Tone) -> None:
        """Play a tone at the door in place of the one before."""
        self._sound.play(tone)

    def join(self, number: int, media: pj.AudioMedia, *, speaker: bool, microphone: bool) -> None:
        """Let the far end be heard at the door, the door at the far end, and mixed calls at each other."""
        self._sound.join(media, speaker=speaker, microphone=microphone)
        if number in self._mixed:
            for other in self._media(self._mixed - {number}):
                if microphone:
                    media.startTransmit(other)
                    other.startTransmit(media)
                else:  # who has put us on hold neither hears the others nor plays them his music
                    media.stopTransmit(other)
                    other.stopTransmit(media)

    def mix(self, numbers: Iterable[int]) -> None:
        """Let calls hear each other, beside the door; replaces what was mixed before."""
        self._mixed = frozenset(numbers)
        for number in self._mixed:
            if number in self._calls:
                self._calls[number].connect(microphone=True)

    def warn(self, numbers: Iterable[int]) -> None:
        """Play the warning tone once, at the door and into calls."""
        self._sound.warn(self._media(numbers))

    def _media(self, numbers: Iterable[int]) -> list[pj.AudioMedia]:
        calls = (self._calls[number] for number in numbers if number in self._calls)
        return [media for call in calls if (media := call.media()) is not None]

    def _sounds(self) -> bool:
        """Whether a call has sound now."""
        return any(call.audio() is not None for call in self._calls.values())

    def _collect_idle(self) -> None:
        # Automatic collection is off in the whole process: it could run on another thread and destroy a
        # pjsua2 object there, which aborts.
        gc.collect()
        self._later(IDLE_COLLECT_SECONDS, self._collect_idle)
