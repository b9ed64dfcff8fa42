"""An account at one server, as pjsua2 wants it and tells of it."""

import ipaddress
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pjsua2 as pj

from intercom.core.actions import Presence, ShowPresence
from intercom.sip.callbacks import guarded
from intercom.sip.config import AccountConfig
from intercom.sip.registration import RegistrationChanged
from intercom.sip.relays import Nat
from intercom.sip.targets import Server
from intercom.sip.transports import EXPEDITED, mark
from intercom.sip.wire import is_bound, printable, retry_after

if TYPE_CHECKING:
    from intercom.sip.registrant import Registrant

SOUND = {
    "off": pj.PJMEDIA_SRTP_DISABLED,
    "optional": pj.PJMEDIA_SRTP_OPTIONAL,
    "mandatory": pj.PJMEDIA_SRTP_MANDATORY,
}
UNPUBLISH_MILLISECONDS = 500
KEEP_ALIVE_SECONDS = 15
"""An address translator that forgets sooner (RFC 4787 section 4.3 has 2 minutes) is broken."""
RELAYS = {"udp": pj.PJ_TURN_TP_UDP, "tcp": pj.PJ_TURN_TP_TCP}
SOUND_KEYS = {"sdes": pj.PJMEDIA_SRTP_KEYING_SDES, "dtls": pj.PJMEDIA_SRTP_KEYING_DTLS_SRTP}


class Account(pj.Account):
    """The account at one server. Calls reach it whoever they are for."""

    def __init__(self, registrant: "Registrant", server: Server, expires_seconds: int) -> None:
        super().__init__()
        self.registrant = registrant
        self._asked = expires_seconds
        self.server = server

    def abandon(self) -> None:
        pass

    @guarded
    def onRegState(self, prm: pj.OnRegStateParam) -> None:
        answer = prm.rdata.wholeMsg
        expires = 0
        if 200 <= prm.code < 300 and is_bound(answer):
            # More than was asked for is not believed: 2^32 s come to 0 or -1 in pjsip.
            expires = prm.expiration if 0 < prm.expiration < self._asked else self._asked
        reason = printable(prm.reason)
        self.registrant.registered(
            RegistrationChanged(self.server, prm.code, reason, expires, retry_after(answer))
        )

    @guarded
    def onIncomingCall(self, prm: pj.OnIncomingCallParam) -> None:
        self.registrant.offered(self, prm.callId, prm.rdata.wholeMsg)

    @guarded
    def onIncomingSubscribe(self, prm: pj.OnIncomingSubscribeParam) -> None:
        prm.code = pj.PJSIP_SC_BAD_EVENT  # watchers ask the server, which is told

    @guarded
    def onInstantMessage(self, prm: pj.OnInstantMessageParam) -> None:
        answer = pj.SendResponseParam()
        answer.deferredResponse = pj.DeferredResponse(prm)
        answer.code = pj.PJSIP_SC_INTERNAL_SERVER_ERROR
        try:
            answer.code = self.registrant.written(prm)
        finally:
            self.sendResponse(answer)

    @guarded
    def onInstantMessageStatus(self, prm: pj.OnInstantMessageStatusParam) -> None:
        self.registrant.answered_message(prm.toUri, prm.msgBody, prm.code, printable(prm.reason))

    def write(self, to: str, text: str) -> None:
        """Send a MESSAGE; `answered_message` tells what became of it. Raises pjsua2.Error."""
        reader = pj.BuddyConfig()
        reader.uri = to
        reader.subscribe = False
        buddy = pj.Buddy()
        buddy.create(self, reader)
        message = pj.SendInstantMessageParam()
        message.contentType = "text/plain"
        message.content = text
        buddy.sendInstantMessage(message)

    def show(self, presence: ShowPresence) -> None:
        """Have watchers told how the station is: at once if it is registered, else when it will be."""
        status = pj.PresenceStatus()
        is_closed = presence.presence is Presence.CLOSED
        status.status = pj.PJSUA_BUDDY_STATUS_OFFLINE if is_closed else pj.PJSUA_BUDDY_STATUS_ONLINE
        is_busy = presence.presence is Presence.BUSY
        status.activity = pj.PJRPID_ACTIVITY_BUSY if is_busy else pj.PJRPID_ACTIVITY_UNKNOWN
        status.note = presence.note
        self.setOnlineStatus(status)


def own_address(address: str, port: int) -> str:
    """The address of this machine that faces another: sound is offered on it and taken from nowhere else."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, port))  # sends nothing
        return str(probe.getsockname()[0])


def through_translators(config: pj.AccountNatConfig, nat: Nat, places: Mapping[str, str], own: str) -> None:
    """Set how sound gets through address translators: with ICE if at all, by servers that answer.

    Args:
        config: what to set it in.
        nat: from the settings.
        places: of the STUN and TURN servers that answer now; "" for one that does not.
        own: the address of this machine that sound is offered on.
    """
    # pjsip takes no address of loopback for a candidate, and places no call without any.
    config.iceEnabled = nat.ice and (any(places.values()) or not ipaddress.ip_address(own).is_loopback)
    config.sipStunUse = pj.PJSUA_STUN_USE_DISABLED  # the registrar tells our outer address (RFC 3581)
    stun = pj.PJSUA_STUN_USE_DEFAULT if places.get("STUN") else pj.PJSUA_STUN_USE_DISABLED
    config.mediaStunUse = stun
    for relay in nat.relays:
        if relay.kind == "TURN":
            config.turnEnabled = bool(places.get("TURN"))
            config.turnServer = places.get("TURN", "")
            config.turnConnType = RELAYS[relay.transport]
            config.turnUserName, config.turnPassword = relay.username, relay.password


def account_config(
    name: str, account: AccountConfig, server: Server, own: str, transport: int | None
) -> pj.AccountConfig:
    """How an account is registered with one server.

    Args:
        name: the station's display name.
        account: from the settings.
        server: the one that every request goes to.
        own: the address of this machine that sound is offered on.
        transport: of pjsip's, if no other may be used.
    """
    config = pj.AccountConfig()
    config.idUri = f'"{name}" <{account.uri}>'
    config.regConfig.registrarUri = account.registrar
    config.regConfig.registerOnAdd = False
    config.regConfig.timeoutSec = account.expires_seconds
    config.regConfig.retryIntervalSec = 0
    config.regConfig.firstRetryIntervalSec = 0
    config.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", account.username, 0, account.password))
    # Every request goes to this server; `hide` keeps the route out of the message.
    config.sipConfig.proxies.append(f"sip:{server.place};transport={server.transport};lr;hide")
    if transport is not None:
        config.sipConfig.transportId = transport
    use = pj.PJSUA_IPV6_ENABLED_USE_IPV6_ONLY if ":" in server.address else pj.PJSUA_IPV6_DISABLED
    config.sipConfig.ipv6Use = config.mediaConfig.ipv6Use = use
    config.sipConfig.autoRespondSipMessage = False
    config.presConfig.publishEnabled = account.presence
    config.presConfig.publishShutdownWaitMsec = UNPUBLISH_MILLISECONDS
    config.callConfig.timerUse = pj.PJSUA_SIP_TIMER_OPTIONAL
    config.callConfig.prackUse = pj.PJSUA_100REL_OPTIONAL
    config.mediaConfig.srtpUse = SOUND[account.sound]
    config.mediaConfig.srtpSecureSignaling = 0
    config.mediaConfig.srtpOpt.keyings.append(SOUND_KEYS[account.sound_keys])
    if account.trust is not None:
        (other,) = SOUND_KEYS.keys() - {account.sound_keys}
        config.mediaConfig.srtpOpt.keyings.append(SOUND_KEYS[other])  # taken if they are offered
    config.mediaConfig.transportConfig.boundAddress = own
    mark(config.mediaConfig.transportConfig, EXPEDITED)
    config.natConfig.udpKaIntervalSec = KEEP_ALIVE_SECONDS
    config.natConfig.contactRewriteUse = config.natConfig.viaRewriteUse = 1  # what rport has shown (RFC 3581)
    return config
