"""A site with two servers behind one name, and what a test does with them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from deploy.demo.account import Account, Transport
from deploy.demo.names import Names
from deploy.demo.phone import Phone
from deploy.demo.program import wait_until
from deploy.demo.site import Site
from deploy.demo.station import Station, settings


@dataclass
class TwoServers:
    """A better server, a spare one, and their name server; ended with `parts`."""

    folder: Path
    users: Mapping[str, str]
    one: Site
    two: Site
    names: Names
    parts: ExitStack

    @classmethod
    def start(cls, folder: Path, users: Mapping[str, str], parts: ExitStack) -> Self:
        """Start both servers and the name server."""
        one, two = (
            parts.enter_context(Site(folder / address, users=users, address=address))
            for address in ("127.0.0.2", "127.0.0.3")
        )
        listed = [("one.site.example", one.port, 10, 0), ("two.site.example", two.port, 20, 0)]
        names = Names(
            folder / "names",
            {"_sip._udp.site.example": listed, "_sip._tcp.site.example": listed},
            {"one.site.example": one.address, "two.site.example": two.address},
        )
        parts.enter_context(names)
        return cls(folder, users, one, two, names, parts)

    def door(self, transport: Transport = "udp", more: str = "") -> Station:
        """Start a station that knows the servers by name alone, registered at the better one."""
        account = Account("door", self.users["door"], "site.example", "site.example", transport)
        text = settings(account, [(self.one.uri("flat1"), 20)], more=self.names.settings + more)
        station = self.parts.enter_context(Station(self.folder / "door", self.users["door"], text))
        station.wait_registered()
        assert self.server(station) == f"one.site.example:{self.one.port} (127.0.0.2)"
        return station

    def phone(self, site: Site) -> Phone:
        """Start flat1's telephone, registered at one of them."""
        phone = Phone(self.folder / site.address, site.account("flat1"))
        self.parts.enter_context(phone)
        phone.wait_registered()
        return phone

    @staticmethod
    def server(station: Station) -> str:
        """The server that the station is registered at, empty if at none."""
        account = station.status()["accounts"][0]
        return str(account["server"]) if account["state"] == "registered" else ""

    def wait_at(self, station: Station, site: Site, timeout: float) -> float:
        """Block until the station is registered at this server; the seconds that it took."""
        begin = time.monotonic()
        assert wait_until(lambda: site.address in self.server(station), timeout), station.status()["accounts"]
        assert len(site.registered("door")) == 1
        return time.monotonic() - begin
