"""A house to try the station in: our SIP server, a resident's telephone, and the door, all in one folder.

Rule: everything it starts is ended with it, and nothing outside its folder is touched.
"""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from deploy.demo.account import Transport
from deploy.demo.phone import Phone
from deploy.demo.site import Site
from deploy.demo.sound import VirtualCard
from deploy.demo.station import Station, settings

DOOR, FLAT = "door", "flat1"
CODE = "5#"


class Home:
    """Server, telephone and station with random passwords, started in this order.

    Args:
        folder: for everything; created when missing.
        answer: whether the phone answers by itself.
        card: the station's virtual sound card; started and ended with the house.
        device: the station's sound device, when there is no virtual card.
        speaks: WAV file that the phone plays to the door.
        records: whether the phone keeps what it hears.
        address: IPv4 address of the server and the phone.
        transport: the station's, to the server.
        algorithm: of the digest authentication.
        seconds: how long the phone is rung.
        release_seconds: how long the door is released.
        more: further settings of the station, as TOML.
    """

    def __init__(
        self,
        folder: Path,
        *,
        answer: Literal["auto", "manual"] = "manual",
        card: VirtualCard | None = None,
        device: str = "none",
        speaks: Path | None = None,
        records: bool = False,
        address: str = "127.0.0.1",
        transport: Transport = "udp",
        algorithm: Literal["MD5", "SHA-256"] = "MD5",
        seconds: float = 25.0,
        release_seconds: float = 2.0,
        more: str = "",
    ) -> None:
        users = {DOOR: secrets.token_urlsafe(12), FLAT: secrets.token_urlsafe(12)}
        self.site = Site(folder / "site", users=users, algorithm=algorithm, address=address)
        self.card = card
        self.flat = self.site.account(FLAT)
        self.phone = Phone(
            folder / "phone", self.flat, answer=answer, speaks=speaks, records=records, address=address
        )
        text = settings(
            self.site.account(DOOR, transport),
            [(self.site.uri(FLAT), seconds)],
            device="door" if card else device,
            codes=(CODE,),
            release_seconds=release_seconds,
            more=more,
        )
        self.station = Station(folder / "door", users[DOOR], text, card.environment if card else None)
        self._parts = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as parts:
            parts.enter_context(self.site)
            if self.card is not None:
                parts.enter_context(self.card)
            if self.site.algorithm == "MD5":  # baresip knows no other
                parts.enter_context(self.phone)
                self.phone.wait_registered()
            parts.enter_context(self.station)
            self.station.wait_registered()
            self._parts = parts.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts.close()

    def status(self) -> dict[str, Any]:
        """The station's status."""
        return self.station.status()
