"""One account on the SIP thread: the server it is at, from which address, over which connections.

Rule: it does as its supervisor says and tells what came of it; nothing is decided here.
"""

import contextlib
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pjsua2 as pj

from intercom.core.actions import Presence, ShowPresence
from intercom.sip.account import Account, account_config, own_address, through_translators
from intercom.sip.callbacks import words
from intercom.sip.certificate import Trust
from intercom.sip.config import AccountConfig
from intercom.sip.registration import (
    AccountNews,
    ConnectionLost,
    News,
    NotTrusted,
    RegistrationChanged,
    ServerSilent,
)
from intercom.sip.relays import Nat
from intercom.sip.targets import Server
from intercom.sip.worker import Later

log = logging.getLogger(__name__)


class Owner(Protocol):
    """What an account needs of the user agent."""

    closing: bool

    @property
    def nat(self) -> Nat:
        """What helps sound through address translators."""

    @property
    def places(self) -> Mapping[str, str]:
        """Of the STUN and TURN servers that answer now."""

    def tell(self, news: Any) -> None:
        """Take what is to be told to the event loop."""

    def transport(self, server: Server, trust: Trust | None) -> int | None:
        """Open what speaks with a server; returns its number if the account must be held to it."""

    def refusal(self, trust: Trust | None, prm: pj.OnTransportStateParam) -> str:
        """Why a connection was not made, where TLS is the reason."""

    def leave(self, connection: int) -> None:
        """Use a connection no more; other accounts that have it are told that it is lost."""

    def written(self, prm: pj.OnInstantMessageParam) -> int:
        """Judge a MESSAGE; returns the status that it is answered with."""

    def answered_message(self, to: str, text: str, status: int, reason: str) -> None:
        """Tell what became of a MESSAGE of ours."""

    def admit(self) -> None:
        """Take requests from the servers that accounts and calls have now."""

    def offered(self, account: Account, call_id: int, invite: str) -> None:
        """Take an INVITE."""


class Registrant:
    """An account of the settings. It has a pjsua2 account while a server is known."""

    def __init__(self, owner: Owner, name: str, config: AccountConfig, later: Later) -> None:
        """Prepare; nothing is sent before `register`.

        Args:
            owner: the user agent.
            name: the station's display name.
            config: the account.
            later: runs a job on the SIP thread after some seconds.
        """
        self.config = config
        self.only_encrypted = config.sound == "mandatory"
        self.account: Account | None = None
        self.server: Server | None = None
        self.servers: Sequence[Server] = ()
        self.distrust = ""
        self._owner = owner
        self._name = name
        self._later = later
        self._own = ""
        self._presence = ShowPresence(Presence.OPEN, "")
        self._connections: set[int] = set()

    def close(self) -> None:
        """Un-register."""
        if self.account is not None:
            self.account.shutdown()

    def is_at(self, place: str) -> bool:
        """Tell whether one of its servers has this address and port."""
        return any(server.place == place for server in self.known)

    @property
    def known(self) -> Sequence[Server]:
        """Its servers; the one in use, which may have been taken off the list, is the first."""
        return (*([self.server] if self.server else []), *self.servers)

    def register(self, server: Server) -> None:
        """Send a REGISTER to this server, now the one in use; `RegistrationChanged` tells the answer."""
        try:
            if not self._move(server) and self.account is not None:
                self.account.setRegistration(True)
        except (pj.Error, OSError) as error:
            self._tell(RegistrationChanged(server, pj.PJSIP_SC_SERVICE_UNAVAILABLE, words(error), 0))

    def follow_address(self) -> None:
        """Register anew where this machine has another address: DHCP, or a cable for the wireless."""
        if self.server is not None:
            with contextlib.suppress(OSError, pj.Error):  # no network now: it may come back as it was
                self._move(self.server)

    def renew(self) -> None:
        """Place the next calls by the STUN and TURN servers that answer now.

        pjsip may forget a REGISTER that waits for its answer, so another is sent; there is no un-REGISTER.
        """
        if self.account is not None and self.server is not None:
            config = self._settings(self.server, self._own)
            config.regConfig.disableRegOnModify = True
            self.account.modify(config)
            self.register_again()

    def register_again(self) -> None:
        """Send another REGISTER to the server in use; its answer is told like that of any other."""
        if self.account is not None:
            with contextlib.suppress(pj.Error):  # one is on its way: its answer is still to come
                self.account.setRegistration(True)

    def silent(self, server: Server) -> None:
        """Tell that a call gets no word out of a server."""
        self._tell(ServerSilent(server))

    def registered(self, news: RegistrationChanged) -> None:
        """Tell what has become of a REGISTER.

        That a connection failed is said a moment later: TLS knows why, and pjsip tells of that after it.
        """
        if news.status == pj.PJSIP_SC_SERVICE_UNAVAILABLE:
            self._later(0.0, functools.partial(self._tell, news))
        else:
            self._tell(news)
        if news.registered and self._presence.presence is Presence.CLOSED:
            self.show(
                self._presence
            )  # pjsip begins by itself to publish that we are open, not that we are not

    def offered(self, account: Account, call_id: int, invite: str) -> None:
        """Take an INVITE."""
        self._owner.offered(account, call_id, invite)

    def written(self, prm: pj.OnInstantMessageParam) -> int:
        """Judge a MESSAGE; returns the status that it is answered with."""
        return self._owner.written(prm)

    def answered_message(self, to: str, text: str, status: int, reason: str) -> None:
        """Tell what became of a MESSAGE of ours."""
        self._owner.answered_message(to, text, status, reason)

    def show(self, presence: ShowPresence) -> None:
        """Have watchers told how the station is, now and whenever the account is made anew."""
        self._presence = presence
        if self.account is not None:
            try:
                self.account.show(presence)
            except pj.Error as error:
                log.warning("account %s: watchers are not told: %s", self.config.name, words(error))

    def connected(self, connection: int) -> None:
        """Know a connection as one that matters. Over TLS the far end was verified before.

        Args:
            connection: its handle, good until `forget`.
        """
        self._connections.add(connection)
        self.distrust = ""

    @property
    def connections(self) -> frozenset[int]:
        """The connections to its server that stand."""
        return frozenset(self._connections)

    def leave(self, connections: frozenset[int]) -> bool:
        """Use these connections no more; returns whether any of them was still in use."""
        left = connections & self._connections
        self._connections -= left
        for connection in left:
            self._owner.leave(connection)
        return bool(left)

    def lost(self, connection: int) -> None:
        """Register anew over a new connection if this one was ours."""
        if self.server is not None and connection in self._connections:
            self._connections.discard(connection)
            self._tell(ConnectionLost(self.server))

    def forget(self, connection: int) -> None:
        """Know a connection no more: pjsip frees it."""
        self._connections.discard(connection)

    def disconnected(self, connection: int, prm: pj.OnTransportStateParam) -> None:
        """Register anew over a new connection: the server reaches us over the one that is gone.

        One that belongs to a server that was left does not matter.
        """
        if self.server is None or self._owner.closing:
            return
        if connection in self._connections:
            self.lost(connection)
        elif not self._connections and prm.remoteAddress == self.server.place:
            # While a good connection stands, another does not matter.
            reason = self._owner.refusal(self.config.trust, prm)
            if reason:
                self.distrust = reason
                self._tell(NotTrusted(self.server, reason))

    def _move(self, server: Server) -> bool:
        """Make the account anew if the server or this machine's address is another; False if not.

        The account's Contact and the address of its sound stay what they were made with.
        """
        own = own_address(server.address, server.port)
        if self.account is not None and (server, own) == (self.server, self._own):
            return False
        if self.account is not None:
            log.warning(
                "account %s: the server and the address of this machine: %s and %s",
                self.config.name,
                server,
                own,
            )
            if server != self.server:
                self._leave(self.account, server)
            self.account.shutdown()
            self.account = None  # destroyed here: later it would shut down the next
            self._connections.clear()
        self.server, self._own = server, own
        account = Account(self, server, self.config.expires_seconds)
        account.create(self._settings(server, own))
        account.show(self._presence)
        self.account = account
        self._owner.admit()
        account.setRegistration(True)
        return True

    def _leave(self, account: Account, server: Server) -> None:
        """Forget the registration instead of un-registering: servers of one site share it.

        A server that was silent would get the un-REGISTER when it is back, and delete what the next has.
        """
        config = self._settings(server, self._own)
        config.regConfig.disableRegOnModify = True
        account.modify(config)

    def _settings(self, server: Server, own: str) -> pj.AccountConfig:
        transport = self._owner.transport(server, self.config.trust)
        config = account_config(self._name, self.config, server, own, transport)
        through_translators(config.natConfig, self._owner.nat, self._owner.places, own)
        return config

    def _tell(self, news: News) -> None:
        self._owner.tell(AccountNews(self.config.name, news))
