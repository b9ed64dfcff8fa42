"""A door with our SIP server, and a scripted phone where one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.demo.counterpart import Counterpart
from deploy.demo.phone import Phone
from deploy.demo.program import free_port
from deploy.demo.sipp import Sipp
from deploy.demo.site import Site
from deploy.demo.station import Station, settings
from tests.integration.conftest import USERS

Door = Callable[..., Station]
Scripted = Callable[[str], Sipp]
Flat = Callable[..., Phone]
Served = Callable[..., tuple[Station, Counterpart]]


@pytest.fixture
def parts() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def door(tmp_path: Path, site: Site, parts: ExitStack) -> Door:
    """Start a registered station that rings flat1 unless told otherwise."""

    def start(
        *,
        ring: list[tuple[str, float]] | None = None,
        transport: str = "udp",
        more: str = "",
        device: str = "none",
        protection: str = "",
        plan: str = "",
        environment: dict[str, str] | None = None,
    ) -> Station:
        account = site.account("door", "tcp" if transport == "tcp" else "udp")
        targets = ring or [(site.uri("flat1"), 20)]
        text = settings(account, targets, device=device, protection=protection, plan=plan, more=more)
        station = parts.enter_context(Station(tmp_path / "door", USERS["door"], text, environment))
        station.wait_registered()
        return station

    return start


@pytest.fixture
def scripted(tmp_path: Path, site: Site, parts: ExitStack) -> Scripted:
    """Start a SIPp phone that is registered as flat1."""

    def start(scenario: str) -> Sipp:
        phone = parts.enter_context(Sipp(tmp_path / "sipp", scenario))
        site.place("flat1", phone.contact)
        return phone

    return start


@pytest.fixture
def flat(tmp_path: Path, site: Site, parts: ExitStack) -> Flat:
    """Start a registered baresip."""

    def start(user: str = "flat1", **options: object) -> Phone:
        phone = parts.enter_context(Phone(tmp_path / user, site.account(user), **options))  # type: ignore[arg-type]
        phone.wait_registered()
        return phone

    return start


@pytest.fixture
def served(tmp_path: Path, parts: ExitStack) -> Served:
    """Start a station that is registered at a scripted server, which rings as flat1 too."""

    def start(*, more: str = "", **options: object) -> tuple[Station, Counterpart]:
        port = free_port()
        server = parts.enter_context(Counterpart(port))
        text = settings(
            server.account(),
            [("sip:flat1@site.example", 20)],
            more=f"[sip]\nport = {port}\n{more}",
            **options,  # type: ignore[arg-type]
        )
        station = parts.enter_context(Station(tmp_path / "door", server.account().password, text))
        server.wait("REGISTER")
        station.wait_registered()
        return station, server

    return start
