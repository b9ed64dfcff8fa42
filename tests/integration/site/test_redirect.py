"""Callers of a name or number that are told to call somebody else instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.demo.phone import Phone
from deploy.demo.site import Site
from deploy.demo.stranger import Reply, Stranger, proof
from tests.integration.site.wire import Call, headers, is_quiet, register, wait_request

TWO = ["sip:porter@one.example", "sip:night@192.0.2.7:5070;transport=tcp"]


def ask(site: Site, method: str, name: str) -> Reply:
    """A request from the door."""
    account, uri = site.account("door"), site.uri(name)
    who = {"From": f"<{account.uri}>;tag=1"}
    with Stranger(site.proxy) as door:
        challenge = door.ask(method, uri, who)
        return door.ask(method, uri, who | proof(challenge, account, method, uri))


@pytest.mark.item(3, "several contacts in their order, for every method", "own messages")
def test_several_contacts_in_their_order(site: Site) -> None:
    site.store.set_redirect("porter", TWO)
    site.reload()
    for method in ("INVITE", "MESSAGE", "SUBSCRIBE", "OPTIONS"):
        answer = ask(site, method, "porter")
        assert answer.code == 302, method
        assert headers(answer.text, "Contact") == [
            "<sip:porter@one.example>;q=1.0",
            "<sip:night@192.0.2.7:5070;transport=tcp>;q=0.9",
        ]


@pytest.mark.item(3, "more contacts than there are steps of q", "own messages")
def test_a_dozen_contacts(site: Site) -> None:
    site.store.set_redirect("porter", [f"sip:porter@n{place}.example" for place in range(12)])
    site.reload()
    contacts = headers(ask(site, "INVITE", "porter").text, "Contact")
    assert len(contacts) == 12
    preferences = [float(contact.partition("q=")[2]) for contact in contacts]
    assert preferences == sorted(preferences, reverse=True)
    assert preferences[-1] > 0


@pytest.mark.item(3, "before the user, also while his phone is there, and without a restart", "own messages")
def test_a_redirect_comes_before_the_user_and_ends(site: Site) -> None:
    site.store.set_redirect("flat1", TWO[:1], permanent=True)
    site.reload()
    with Stranger(site.proxy) as flat, Stranger(site.proxy) as door:
        register(site, "flat1", flat)
        assert ask(site, "INVITE", "flat1").code == 301
        assert is_quiet(flat)
        site.store.remove_redirect("flat1")
        site.reload()
        Call(door, site.account("door"), site.uri("flat1")).begin()
        wait_request(flat, "INVITE")


@pytest.mark.item(3, "a number, however it is written", "own messages")
def test_a_number_is_redirected(site: Site) -> None:
    site.store.set_redirect("+49301234567", TWO[:1])
    site.store.set_redirect("112", TWO[:1])
    site.reload()
    for number in ("+49301234567", "0049301234567", "112"):
        assert ask(site, "INVITE", number).code == 302


@pytest.mark.item(3, "nobody without a password learns where a call goes", "own messages")
def test_a_stranger_is_not_redirected(site: Site) -> None:
    site.store.set_redirect("porter", TWO)
    site.reload()
    with Stranger(site.proxy) as stranger:
        answer = stranger.ask("INVITE", site.uri("porter"))
    assert answer.code == 407
    assert "one.example" not in answer.text


@pytest.mark.item(3, "a phone follows, and somebody answers", "baresip")
def test_a_phone_follows(tmp_path: Path, site: Site) -> None:
    site.store.set_redirect("porter", [site.uri("flat1")])
    site.reload()
    with (
        Phone(tmp_path / "door", site.account("door")) as door,
        Phone(tmp_path / "flat1", site.account("flat1")) as flat,
    ):
        door.wait_registered()
        flat.wait_registered()
        door.dial(site.uri("porter"))
        flat.wait_ringing()
        flat.answer()
        door.wait_established()
