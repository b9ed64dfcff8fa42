"""Two telephone systems that know nothing of each other: the second one serves while the first is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.demo.phone import Phone
from deploy.demo.program import wait_until
from deploy.demo.site import Site
from deploy.demo.station import Station, settings
from tests.integration.conftest import Figure

_SECOND = """
[[account]]
name = "spare"
uri = "sip:door@site.example"
registrar = "sip:{proxy};transport={transport}"
username = "door"
password_file = "spare.secret"
"""


@dataclass
class TwoSystems:
    """A preferred system and a spare one, each with its own password for the door."""

    folder: Path
    one: Site
    two: Site
    parts: ExitStack

    def door(self, transport: str = "udp", more: str = "") -> Station:
        folder = self.folder / "door"
        folder.mkdir()
        secret = folder / "spare.secret"
        secret.touch(0o600)
        secret.write_text(self.two.users["door"])
        second = _SECOND.format(proxy=self.two.proxy, transport=transport)
        account = self.one.account("door", "tcp" if transport == "tcp" else "udp")
        text = settings(account, [(self.one.uri("flat1"), 20)], more=second + more)
        station = self.parts.enter_context(Station(folder, self.one.users["door"], text))
        self.one.wait_registered("door")
        self.two.wait_registered("door")
        assert wait_until(lambda: self.states(station) == ["registered"] * 2, 5.0)
        return station

    def phone(self, site: Site) -> Phone:
        phone = self.parts.enter_context(
            Phone(site.folder.parent / f"phone-{site.port}", site.account("flat1"))
        )
        phone.wait_registered()
        return phone

    @staticmethod
    def states(station: Station) -> list[str]:
        return [account["state"] for account in station.status()["accounts"]]


@pytest.fixture
def systems(tmp_path: Path) -> Iterator[TwoSystems]:
    with ExitStack() as parts:
        one, two = (
            parts.enter_context(
                Site(tmp_path / name, users={"door": f"{name}-door-secret", "flat1": f"{name}-flat1-secret"})
            )
            for name in ("one", "two")
        )
        yield TwoSystems(tmp_path, one, two, parts)


@pytest.mark.item(1, "all accounts are registered, the first places the calls", "two Kamailios, baresip")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_both_are_registered_and_the_first_is_called_by(systems: TwoSystems, transport: str) -> None:
    station, here, there = systems.door(transport), systems.phone(systems.one), systems.phone(systems.two)
    names = [account["name"] for account in station.status()["accounts"]]
    assert names == ["door@site.example", "spare"]
    station.press()
    here.wait_ringing()
    here.answer()
    station.wait_event("CallAnswered")
    assert not any(event.type == "CALL_INCOMING" for event in there.events)
    assert station.stop() == 0
    assert systems.one.registered("door") == systems.two.registered("door") == []


@pytest.mark.item(1, "a call that gets no word goes by the next account", "two Kamailios, baresip")
def test_a_call_that_gets_no_word_goes_by_the_next(systems: TwoSystems, figure: Figure) -> None:
    station, there = systems.door(), systems.phone(systems.two)
    systems.one.freeze()
    begin = time.monotonic()
    station.press()
    there.wait_ringing()
    figure("from a press to the ringing by the second account", time.monotonic() - begin, "s", 4.0)
    there.answer()
    station.wait_event("CallAnswered")
    there.hang_up()
    assert station.wait_action("RecordCall")["outcome"] == "answered"
    assert station.status()["counters"]["calls_placed"] == 1
    systems.one.thaw()


@pytest.mark.long
@pytest.mark.item(1, "a preferred account that is back is used again", "two Kamailios, baresip")
def test_an_account_that_is_back_is_used_again(systems: TwoSystems, figure: Figure) -> None:
    station, here, there = systems.door(), systems.phone(systems.one), systems.phone(systems.two)
    systems.one.kill()
    assert wait_until(lambda: systems.states(station) == ["unregistered", "registered"], 20.0)
    assert "account door@site.example" in station.status()["faults"]
    begin = time.monotonic()
    station.press()
    there.wait_ringing()
    figure("from a press to the ringing while the first account is away", time.monotonic() - begin, "s", 1.0)
    station.ask("POST", "/hangup", {})
    there.wait_closed()
    systems.one.start()
    begin = time.monotonic()
    assert wait_until(lambda: systems.states(station) == ["registered"] * 2, 15.0)
    figure("from the return of a server to the registration", time.monotonic() - begin, "s", 10.0)
    assert not station.status()["faults"]
    station.wait_state("Idle")
    station.press()
    here.wait_ringing()


@pytest.mark.item(1, "calls are taken on every account", "two Kamailios, baresip")
def test_calls_are_taken_on_each(systems: TwoSystems) -> None:
    permit = '[incoming]\npermit = ["sip:flat1@site.example"]\nanswer = "automatic"\n'
    station = systems.door(more=permit)
    for count, site in enumerate((systems.one, systems.two), 1):
        phone = systems.phone(site)
        phone.dial(site.uri("door"))
        phone.wait_established()
        assert station.status()["counters"]["calls_accepted"] == count
        phone.hang_up()
        station.wait_action("RecordCall")
        station.wait_state("Idle")
