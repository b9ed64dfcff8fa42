"""pjsua2 behind verbs of our own.

Rule: everything here runs on the SIP thread. Callbacks copy what they need and `tell`. No pjsua2 object gets
past the modules behind this one, and a call is kept until DISCONNECTED was seen and dropped there.
"""

import contextlib
import functools
import gc
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pjsua2 as pj

from intercom.core.actions import ShowPresence
from intercom.core.events import (
    CallAnswered,
    CallEnded,
    CallOffered,
    CallReplaced,
    CallTransferred,
    HealthChanged,
    MessageReceived,
)
from intercom.core.guide import Hearing, Tone
from intercom.sip.account import Account
from intercom.sip.call import IN_THE_CLEAR, Call
from intercom.sip.callbacks import guarded, words
from intercom.sip.certificate import Trust
from intercom.sip.config import LineConfig
from intercom.sip.letter import ACCEPTED, judge
from intercom.sip.outbox import MessageAnswered
from intercom.sip.registrant import Registrant
from intercom.sip.sound import BRIDGE_HERTZ, Sound
from intercom.sip.tally import Tally
from intercom.sip.targets import Server
from intercom.sip.transports import leave, plain, refusal, secured
from intercom.sip.wire import address_of, asserted_in, diverted_by, from_of, printable, transfer_target
from intercom.sip.worker import Later

log = logging.getLogger(__name__)

CODECS = ("opus/48000/2", "G722/16000/1", "PCMA/8000/1", "PCMU/8000/1")
HIGHEST_PRIORITY = 255
TRANSPORTS = {
    "udp": pj.PJSIP_TRANSPORT_UDP,
    "tcp": pj.PJSIP_TRANSPORT_TCP,
    "tls": pj.PJSIP_TRANSPORT_TLS,
}
MAX_CALLS = 16
"""Six may ring together; as many that were hung up may not be over yet."""
MOST_ADMITTED = 64
"""Admission::MAX_PEERS."""
NO_ECHO_CANCELLER = 0
ECHO_TAIL_MILLISECONDS = 200
COLLECT_SECONDS = 1.0
ADDRESS_SECONDS = 5.0
IDLE_COLLECT_SECONDS = 600.0
SILENCE_SECONDS = 2.0
"""How long a server, or a connection, may be silent to a call while there is another.

Over UDP the call was sent three times by then.
"""
WATCH_SECONDS = 0.5
"""How often a call is asked whether sound comes. There is a call then, and the thread awake for its sound."""
MOVE_SECONDS = 1.0
"""How long a call that could not be sent waits for another server."""

Tell = Callable[[Any], None]


@dataclass(slots=True)
class _Unheard:
    """A call that no server has said a word to.

    Attributes:
        to: whom it is for.
        via: a proxy that it shall go through; "" for none.
        accounts: by which it may go, the first first; it goes by the first of them now.
        sent_to: the servers of that account that it was sent to.
        connections: those that stood when it was sent last; it went over one of them, if there was any.
        reconnected: whether it was sent over a new connection because those were silent.
    """

    to: str
    via: str
    accounts: list[str]
    sent_to: set[Server] = field(default_factory=set)
    connections: frozenset[int] = frozenset()
    reconnected: bool = False


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
            self._engine.connected(prm)
        elif prm.state == pj.PJSIP_TP_STATE_DISCONNECTED:
            self._engine.disconnected(prm)
        elif prm.state == pj.PJSIP_TP_STATE_DESTROY:
            self._engine.destroyed(int(prm.hnd))

    @guarded
    def onSelectAccount(self, prm: pj.OnSelectAccountParam) -> None:
        prm.accountIndex = self._engine.account_of(prm.rdata.srcAddress, prm.accountIndex)


class Engine:
    """A pjsua2 user agent with some accounts, up to eight calls and one sound device."""

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
        self.nat = config.nat
        self.places: dict[str, str] = {}
        self._later = later
        self._calls: dict[int, Call] = {}
        self._unheard: dict[int, _Unheard] = {}
        self._unanswered: dict[tuple[str, str], list[int]] = {}
        self._admitted: set[Server] = set()
        self._refused_calls, self._refused_messages = Tally("call"), Tally("message")
        self._registrants = {
            account.name: Registrant(self, config.name, account, later) for account in config.accounts
        }
        self._transports: dict[tuple[int, Trust | None], int] = {}
        self._unencrypted = False
        self._offers = 0
        self._mixed: frozenset[int] = frozenset()
        self._watching = False
        self.closing = False
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
        self._endpoint.audDevManager().setNoDev()
        self._endpoint.libStart()

        for codec in self._endpoint.codecEnum2():
            self._endpoint.codecSetPriority(codec.codecId, 0)
        for rank, codec_id in enumerate(CODECS):
            self._endpoint.codecSetPriority(codec_id, HIGHEST_PRIORITY - rank)
        self._sound = Sound(self._endpoint.audDevManager(), config.device, self._sounds, tell, later)
        self._later(IDLE_COLLECT_SECONDS, self._collect_idle)
        self._later(ADDRESS_SECONDS, self._follow_address)

    def _listen(self) -> int:
        """Open the UDP transport, on another port if the wanted one is taken: a bell must ring."""
        transport = plain()
        transport.port = self._config.port
        if all(account.trust is not None for account in self._config.accounts):
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

    def transport(self, server: Server, trust: Trust | None) -> int | None:
        """Open what speaks with a server; returns its number if the account must be held to it.

        Accounts may trust different authorities: each has its own TLS.
        """
        six = ":" in server.address
        kind = TRANSPORTS[server.transport] | (pj.PJSIP_TRANSPORT_IPV6 if six else 0)
        if server.transport == "udp" and not six:
            return None  # the one that the waker uses
        trust = trust if server.transport == "tls" else None
        if (kind, trust) not in self._transports:
            settings = secured(trust) if trust is not None else plain()
            self._transports[kind, trust] = self._endpoint.transportCreate(kind, settings)
        return self._transports[kind, trust] if trust is not None else None

    def refusal(self, trust: Trust | None, prm: pj.OnTransportStateParam) -> str:
        """Why a connection was not made, where TLS is the reason."""
        return refusal(self._endpoint, trust, prm)

    # What the worker needs

    def poll(self, seconds: float) -> None:
        """Handle SIP, RTP and pjsip's timers; wait for them no longer than `seconds`."""
        self._endpoint.libHandleEvents(max(1, int(seconds * 1000)))

    def close(self) -> None:
        """End the calls, un-register, and free everything; about a second."""
        self.closing = True
        self._endpoint.hangupAllCalls()
        self._calls.clear()
        self._unheard.clear()
        for registrant in self._registrants.values():
            registrant.close()
        del self._sound
        gc.collect()
        self._endpoint.libDestroy()

    # Registration

    def serve(self, name: str, servers: Sequence[Server]) -> None:
        """Take requests from these servers of an account: any of them may have a call for us."""
        self._registrants[name].servers = servers
        self.admit()

    def admit(self) -> None:
        """Take requests from the servers of all accounts; those of calls stay until these are over."""
        known = [registrant.known for registrant in self._registrants.values()]
        calls = [call.server for call in self._calls.values()]
        ranks = itertools.chain.from_iterable(itertools.zip_longest(*known))  # every account's first, then …
        servers = dict.fromkeys(server for server in (*calls, *ranks) if server is not None)
        self._admitted = set(itertools.islice(servers, MOST_ADMITTED))
        pj.Admission.set([f"{server.place};transport={server.transport}" for server in self._admitted])

    def use(self, kind: str, place: str) -> None:
        """Have the next calls use a STUN or TURN server, or go without it.

        Args:
            kind: `STUN` or `TURN`.
            place: its `address:port`; "" if it does not answer.
        """
        if place == self.places.get(kind, ""):
            return
        self.places[kind] = place
        if kind == "STUN" and place:
            self._endpoint.natUpdateStunServers(pj.StringVector([place]), False)
        for registrant in self._registrants.values():
            registrant.renew()
        if place:
            log.info("the next calls use the %s server at %s", kind, place)

    def register(self, name: str, server: Server) -> None:
        """Send an account's REGISTER to this server, now the one in use; `AccountNews` tell the answer."""
        registrant = self._registrants[name]
        registrant.register(server)
        self._call_again(registrant)

    def connected(self, prm: pj.OnTransportStateParam) -> None:
        """Tell the accounts whose server is at the other end of a new connection."""
        for registrant in self._registrants.values():
            if registrant.server is not None and registrant.server.place == prm.remoteAddress:
                registrant.connected(int(prm.hnd))

    def disconnected(self, prm: pj.OnTransportStateParam) -> None:
        """Tell the accounts that a connection has ended, or was not made."""
        for registrant in self._registrants.values():
            registrant.disconnected(int(prm.hnd), prm)

    def destroyed(self, connection: int) -> None:
        """Forget a connection that pjsip is about to free: one that nobody used ends without another word."""
        for registrant in self._registrants.values():
            registrant.forget(connection)

    def leave(self, connection: int) -> None:
        """Use a connection no more; other accounts that have it are told that it is lost.

        pjsip closes it when nothing waits for an answer over it any more.
        """
        leave(connection)
        for registrant in self._registrants.values():
            registrant.lost(connection)

    def account_of(self, source: str, chosen: int) -> int:
        """Return the number of the account that a request belongs to: that of the server which sent it.

        pjsip goes by user and host, which may be the same at two servers; the password that a server may ask
        for in the call is that of its own account.

        Args:
            source: address and port that the request came from.
            chosen: by pjsip; of two accounts at one server it knows better which is meant.
        """
        there = [
            registrant.account.getId()
            for registrant in self._registrants.values()
            if registrant.account is not None and registrant.is_at(source)
        ]
        return chosen if chosen in there or not there else there[0]

    def _follow_address(self) -> None:
        """Notice that this machine has another address."""
        self._later(ADDRESS_SECONDS, self._follow_address)
        if not self._calls:
            for registrant in self._registrants.values():
                registrant.follow_address()

    # Calls

    def dial(self, number: int, to: str, via: str, accounts: Sequence[str]) -> None:
        """Place a call.

        It ends with `CallEnded` also when it cannot even be sent.
        A server that says nothing to it for two seconds is told as `ServerSilent`; when another one is then
        given to `register`, the call goes there instead. After the last server it goes by the next account.
        After the last account it goes over a new connection, once: the one in use may be deaf.

        Args:
            number: of the call.
            to: whom it is for.
            via: a proxy that it shall go through; "" for none.
            accounts: names of those by which it may go, the first first.
        """
        ready = [name for name in accounts if self._registrants[name].account is not None]
        if not ready:
            self.tell(
                CallEnded(number, pj.PJSIP_SC_SERVICE_UNAVAILABLE, "the registrar's address is unknown")
            )
            return
        self._unheard[number] = _Unheard(to, via, ready)
        self._place(number)

    def _place(self, number: int) -> None:
        unheard = self._unheard[number]
        account = self._registrants[unheard.accounts[0]].account
        assert account is not None, "it is made anew, but never taken away"
        server = account.server
        unheard.sent_to.add(server)
        unheard.connections = account.registrant.connections
        call = Call(self, account, number, server)
        setting = pj.CallOpParam(True)
        setting.opt.textCount = 0
        setting.opt.videoCount = 0
        if unheard.via:
            route = pj.SipHeader()
            route.hName, route.hValue = "Route", f"<{unheard.via};lr>"
            setting.txOption.headers.append(route)
        self._calls[number] = call
        self._later(SILENCE_SECONDS, functools.partial(self._miss, number, call.registrant, server))
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
        old = self._calls[number]
        assert old.registrant.account is not None, "there is a call"
        self._offers -= 1
        new = Call(self, old.registrant.account, self._offers, old.server, instead_of=number)
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

    def _miss(self, number: int, registrant: Registrant, server: Server) -> bool:
        """Notice that a server says nothing to a call; returns whether another one gets it."""
        unheard = self._unheard.get(number)
        if unheard is not None and self._waits(number):
            log.warning("call %d: a STUN or TURN server is silent, the call goes without", number)
            for kind in self.places:
                self.use(kind, "")
            self._place_again(number)
            return True
        if (
            unheard is None
            or unheard.accounts[0] != registrant.config.name
            or server not in unheard.sent_to
            or server != registrant.server
        ):
            return False
        more = not unheard.sent_to >= set(registrant.servers)
        if not more and len(unheard.accounts) == 1:
            return self._reconnect(number, unheard, registrant)
        log.warning("call %d: %s is silent", number, server)
        registrant.leave(unheard.connections)
        registrant.silent(server)
        if not more:
            unheard.accounts.pop(0)
            unheard.sent_to.clear()
            self._place_again(number)
        return True

    def _reconnect(self, number: int, unheard: _Unheard, registrant: Registrant) -> bool:
        """Send a call over a new connection, once; returns whether it was.

        An address translator may have forgotten the one in use, or the server reads it no more: TCP tells
        nothing of either for a quarter of an hour.
        """
        if unheard.reconnected or not unheard.connections or number not in self._calls:
            return False
        log.warning(
            "call %d: the connection to %s is silent, it goes over a new one", number, registrant.server
        )
        unheard.reconnected = True
        if registrant.leave(unheard.connections):
            registrant.register_again()
        self._place_again(number)
        return True

    def _waits(self, number: int) -> bool:
        """Whether a call is not sent yet because STUN and TURN servers are still asked."""
        call = self._calls.get(number)
        if call is None or not any(self.places.values()):
            return False
        with contextlib.suppress(pj.Error):
            return bool(call.getInfo().state == pj.PJSIP_INV_STATE_NULL)
        return False

    def _call_again(self, registrant: Registrant) -> None:
        """Send an account's calls that nobody has said a word to by the server now in use, once."""
        for number, unheard in list(self._unheard.items()):
            own = unheard.accounts[0] == registrant.config.name
            if own and registrant.account is not None and registrant.account.server not in unheard.sent_to:
                self._place_again(number)

    def _place_again(self, number: int) -> None:
        old = self._calls.pop(number, None)
        if old is not None:
            with contextlib.suppress(pj.Error):
                old.hangup(pj.CallOpParam())  # the CANCEL follows the first word of the server, if ever
        del old
        self._place(number)

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
            self._refused_calls.add(named, "not permitted by the settings")
            self.respond(call.number, pj.PJSIP_SC_FORBIDDEN)

    def respond(self, number: int, status: int) -> None:
        """Answer an offered call: 180, 200, or a refusal.

        An offer in which nothing fits is refused by pjsip (488) instead of accepted.
        """
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
            with contextlib.suppress(pj.Error):
                call.connect(Hearing.NONE)  # its answer may cross our CANCEL
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
        self.admit()
        self._sound.rest()
        self._later(COLLECT_SECONDS, gc.collect)
        if self._miss(number, call.registrant, call.server):
            self._later(MOVE_SECONDS, functools.partial(self._give_up, number, status, reason))
        else:
            self._unheard.pop(number, None)
            contacts = () if call.redirection is None else call.redirection.contacts
            self.tell(CallEnded(number, status, self._explain(call, status, reason), contacts))

    def _explain(self, call: Call, status: int, reason: str) -> str:
        """Say more than pjsip where protection is why a call that we placed has failed."""
        if not call.dialled:
            return reason
        if status == pj.PJSIP_SC_SERVICE_UNAVAILABLE and call.registrant.distrust:
            return f"the server {call.registrant.distrust}"
        if call.registrant.only_encrypted and status == pj.PJSIP_SC_NOT_ACCEPTABLE_HERE:
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

    def write(self, number: int, to: str, text: str, name: str) -> None:
        """Send a MESSAGE by this account; `MessageAnswered` tells what became of it."""
        account = self._registrants[name].account
        waiting = self._unanswered.setdefault((to, text), [])
        waiting.append(number)
        try:
            if account is None:
                self.answered_message(to, text, pj.PJSIP_SC_SERVICE_UNAVAILABLE, "no server is known")
            else:
                account.write(to, text)
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
            self._refused_messages.add(named, status)
        return status

    def _is_secure(self, source: str) -> bool:
        """Whether what comes from an `address:port` can have come over TLS only."""
        host = source.rpartition(":")[0].strip("[]")
        ways = {server.transport for server in self._admitted if server.address == host}
        return ways == {"tls"}

    def show(self, presence: ShowPresence) -> None:
        """Have watchers told how the station is."""
        for registrant in self._registrants.values():
            registrant.show(presence)

    # Sound

    def play(self, tone: Tone) -> None:
        """Play a tone at the door in place of the one before."""
        self._sound.play(tone)

    def connect(self, number: int, hearing: Hearing) -> None:
        """Join a call's sound to the door so far and no further, until it is hung up or over."""
        call = self._calls.get(number)
        if call is not None:
            call.connect(hearing)

    def join(
        self, number: int, media: pj.AudioMedia, *, speaker: bool, microphone: bool, prompt: bool
    ) -> None:
        """Join the sound that a call has now to the door, and mixed calls to each other."""
        self._sound.join(media, speaker=speaker, microphone=microphone, prompt=prompt)
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
                self._calls[number].connect()

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
