"""What our SIP server lets nobody do, and what it remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.demo.account import Account
from deploy.demo.phone import Phone
from deploy.demo.scenarios import flood, refuses
from deploy.demo.sipp import Sipp
from deploy.demo.site import Site
from deploy.demo.stranger import Reply, Stranger, proof
from intercom.site.settings import Digest
from tests.integration.conftest import USERS


def ask_as(
    somebody: Stranger, account: Account, method: str, uri: str, headers: dict[str, str] | None = None
) -> Reply:
    """A request from the account, the challenge, and the request again with the password."""
    headers = {"From": f"<{account.uri}>;tag=1", **(headers or {})}
    if method == "REGISTER":
        headers = {"To": f"<{account.uri}>", **headers}
    challenge = somebody.ask(method, uri, headers)
    assert challenge.code == (401 if method == "REGISTER" else 407)
    return somebody.ask(method, uri, headers | proof(challenge, account, method, uri))


def test_options_are_answered_without_naming_the_software(site: Site) -> None:
    with Stranger(site.proxy) as stranger:
        reply = stranger.ask("OPTIONS", f"sip:{site.realm}")
    assert reply.code == 200
    assert "kamailio" not in reply.text.lower()
    assert not reply.header("Server")


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_register_with_either_digest(tmp_path: Path, algorithm: Digest) -> None:
    with (
        Site(tmp_path / "site", users=USERS, algorithm=algorithm) as site,
        Stranger(site.proxy) as somebody,
    ):
        who = {"From": f"<{site.uri('flat1')}>;tag=1", "To": f"<{site.uri('flat1')}>"}
        challenge = somebody.ask("REGISTER", f"sip:{site.realm}", who)
        assert f"algorithm={algorithm}" in challenge.header("WWW-Authenticate")
        assert ask_as(somebody, site.account("flat1"), "REGISTER", f"sip:{site.realm}").code == 200
        assert len(site.registered("flat1")) == 1


def test_wrong_password_and_unknown_user_get_the_same_answer(site: Site) -> None:
    with Stranger(site.proxy) as stranger:
        replies = [
            ask_as(stranger, Account(user, "guess", site.realm, site.proxy), "REGISTER", f"sip:{site.realm}")
            for user in ("flat1", "nobody")
        ]
    assert [reply.code for reply in replies] == [401, 401]
    assert [reply.header("WWW-Authenticate").count("stale") for reply in replies] == [0, 0]
    assert site.registered("flat1") == []


def test_a_digest_counts_once(site: Site) -> None:
    account, uri = site.account("flat1"), f"sip:{site.realm}"
    who = {"From": f"<{account.uri}>;tag=1", "To": f"<{account.uri}>"}
    with Stranger(site.proxy) as flat, Stranger(site.proxy, "127.0.0.66") as thief:
        seen = who | proof(flat.ask("REGISTER", uri, who), account, "REGISTER", uri)
        assert flat.ask("REGISTER", uri, seen).code == 200
        again = thief.ask("REGISTER", uri, seen)
    assert again.code == 401
    assert "stale=true" in again.header("WWW-Authenticate")


def test_nobody_uses_the_name_of_another(site: Site) -> None:
    flat2 = site.account("flat2")
    with Stranger(site.proxy) as somebody:
        forged = {"From": f"<{site.uri('door')}>;tag=1"}
        assert ask_as(somebody, flat2, "INVITE", site.uri("flat1"), forged).code == 403
        assert ask_as(somebody, flat2, "MESSAGE", site.uri("flat1"), forged).code == 403
        stolen = {"To": f"<{site.uri('flat1')}>"}
        assert ask_as(somebody, flat2, "REGISTER", f"sip:{site.realm}", stolen).code == 403
        foreign = {"From": "<sip:flat2@elsewhere.example>;tag=1"}
        assert ask_as(somebody, flat2, "INVITE", site.uri("flat1"), foreign).code == 403
    assert site.registered("flat1") == []


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE", "SUBSCRIBE", "INFO", "BYE"])
def test_nothing_new_without_a_password(site: Site, method: str) -> None:
    with Stranger(site.proxy) as stranger:
        assert stranger.ask(method, site.uri("flat1")).code == 407


def test_nobody_transfers_what_is_no_call(site: Site) -> None:
    with Stranger(site.proxy) as stranger:
        assert stranger.ask("REFER", site.uri("flat1")).code == 403


def test_cancel_of_nothing(site: Site) -> None:
    with Stranger(site.proxy) as stranger:
        assert stranger.ask("CANCEL", site.uri("flat1")).code == 481


def test_nothing_is_relayed_elsewhere(site: Site) -> None:
    with Stranger(site.proxy) as stranger, Stranger(site.proxy) as victim:
        elsewhere = f"sip:victim@{victim.address}"
        route = f"<sip:{site.proxy};lr>, <sip:{victim.address};lr>"
        tag = {"To": f"<{elsewhere}>;tag=made-up"}
        assert stranger.ask("INVITE", elsewhere).code == 403
        assert stranger.ask("INVITE", elsewhere, {"Route": route}).code == 403
        assert stranger.ask("BYE", elsewhere, tag).code == 481
        assert stranger.ask("BYE", elsewhere, tag | {"Route": route}).code == 481
        forged_key = {"Route": f"<sip:{site.proxy};lr;key={'0' * 24}>, <sip:{victim.address};lr>"}
        assert stranger.ask("BYE", elsewhere, tag | forged_key).code == 481
        with pytest.raises(TimeoutError):
            victim.receive(timeout=0.2)


def test_a_digest_is_not_passed_on(site: Site) -> None:
    with Stranger(site.proxy) as door, Stranger(site.proxy) as flat:
        site.place("flat1", f"sip:flat1@{flat.address}")
        account, uri = site.account("door"), site.uri("flat1")
        who = {"From": f"<{account.uri}>;tag=1"}
        door.send("MESSAGE", uri, who | proof(door.ask("MESSAGE", uri, who), account, "MESSAGE", uri))
        arrived = flat.receive()
    assert arrived.startswith("MESSAGE sip:flat1@")
    assert "Authorization" not in arrived


def test_a_refusal_passes_with_its_headers(tmp_path: Path, site: Site) -> None:
    script = refuses(480, None, "Retry-After: 30")
    with Stranger(site.proxy) as door, Sipp(tmp_path / "flat1", script) as flat:
        site.place("flat1", flat.contact)
        reply = ask_as(door, site.account("door"), "INVITE", site.uri("flat1"))
    assert reply.code == 480
    assert reply.header("Retry-After") == "30"


def test_too_many_hops(site: Site) -> None:
    with Stranger(site.proxy) as stranger:
        assert stranger.ask("INVITE", site.uri("flat1"), {"Max-Forwards": "0"}).code == 483


@pytest.mark.parametrize(("remembers", "contacts"), [(True, 1), (False, 0)])
def test_locations_survive_a_kill_when_they_are_in_the_database(
    tmp_path: Path, remembers: bool, contacts: int
) -> None:
    with (
        Site(tmp_path / "site", users=USERS, remembers=remembers) as site,
        Phone(tmp_path / "flat1", site.account("flat1")) as flat,
    ):
        flat.wait_registered()
        site.wait_registered("flat1")
        site.kill()
        flat.kill()
        site.restart()
        assert len(site.registered("flat1")) == contacts


def test_a_frozen_site_says_nothing_and_wakes_up(site: Site) -> None:
    with Stranger(site.proxy) as stranger:
        site.freeze()
        with pytest.raises(TimeoutError):
            stranger.ask("OPTIONS", f"sip:{site.realm}", timeout=0.3)
        site.thaw()
        assert stranger.ask("OPTIONS", f"sip:{site.realm}").code == 200


def test_a_flood_from_a_stranger_does_not_stop_the_site(tmp_path: Path, site: Site) -> None:
    script = flood(site.uri("flat1"))
    with (
        Sipp(tmp_path / "flood", script, site.proxy, calls=500, rate=500, source="127.0.0.50") as strangers,
        Stranger(site.proxy) as somebody,
    ):
        assert somebody.ask("OPTIONS", f"sip:{site.realm}").code == 200
        assert strangers.wait().begun == 500
        assert somebody.ask("OPTIONS", f"sip:{site.realm}").code == 200
