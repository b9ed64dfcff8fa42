"""A second make of phone at our SIP server: linphonec registers, rings, is rung, and writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.demo.account import Account, Transport
from deploy.demo.linphone import Linphone
from deploy.demo.phone import Phone
from deploy.demo.site import Site
from intercom.site.settings import Digest
from tests.integration.conftest import USERS


@pytest.mark.item(1, "linphonec registers and unregisters, by either digest", "linphonec")
@pytest.mark.parametrize(("algorithm", "transport"), [("MD5", "udp"), ("SHA-256", "udp"), ("MD5", "tcp")])
def test_linphone_registers(tmp_path: Path, algorithm: Digest, transport: Transport) -> None:
    with Site(tmp_path / "site", users=USERS, algorithm=algorithm) as site:
        with Linphone(tmp_path / "flat1", site.account("flat1", transport)) as flat:
            flat.wait_registered()
            assert len(site.registered("flat1")) == 1
        assert site.registered("flat1") == []


@pytest.mark.item(1, "a wrong password registers nobody", "linphonec")
def test_linphone_with_a_wrong_password(tmp_path: Path, site: Site) -> None:
    with Linphone(tmp_path / "flat1", Account("flat1", "guess", site.realm, site.proxy)) as flat:
        flat.wait_event("REGISTER_FAIL")
    assert site.registered("flat1") == []


@pytest.mark.item(2, "linphonec and baresip call each other", "linphonec, baresip")
def test_linphone_and_baresip_call_each_other(tmp_path: Path, site: Site) -> None:
    with (
        Linphone(tmp_path / "flat1", site.account("flat1")) as flat,
        Phone(tmp_path / "door", site.account("door")) as door,
    ):
        flat.wait_registered()
        door.wait_registered()

        door.dial(site.uri("flat1"))
        assert flat.wait_ringing().peer == site.uri("door")
        flat.answer()
        flat.wait_established()
        door.wait_established()
        door.press_digits("5#")
        flat.wait_digits("5#")
        door.hang_up()
        door.wait_closed()
        flat.wait_closed()

        flat.dial(site.uri("door"))
        assert door.wait_ringing().peer == site.uri("flat1")
        door.answer()
        flat.wait_established()
        flat.hang_up()
        assert door.wait_closed().text == "Connection reset by peer"


@pytest.mark.item(2, "refused and given up calls reach the other side", "linphonec, baresip")
def test_linphone_refuses_and_is_refused(tmp_path: Path, site: Site) -> None:
    with (
        Linphone(tmp_path / "flat1", site.account("flat1")) as flat,
        Phone(tmp_path / "door", site.account("door")) as door,
    ):
        flat.wait_registered()
        door.wait_registered()

        door.dial(site.uri("flat1"))
        flat.wait_ringing()
        flat.reject()
        assert "603" in door.wait_closed().text
        flat.wait_closed()

        flat.dial(site.uri("door"))
        flat.wait_event("CALL_RINGING")
        door.reject()
        assert flat.wait_closed().text == "486"

        door.dial(site.uri("flat1"))
        flat.wait_ringing()
        door.hang_up()
        assert flat.wait_closed().text == "Not answered"
