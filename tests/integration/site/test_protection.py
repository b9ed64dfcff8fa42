"""What is dropped without a word, what a stranger may ask, and what no user may do for a stranger."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo.program import wait_until
from deploy.demo.site import Site
from deploy.demo.stranger import Reply, Stranger, proof
from tests.integration.conftest import USERS
from tests.integration.site.wire import (
    Call,
    is_quiet,
    register,
    serves,
    try_register,
    wait_answer,
    wait_request,
)

FLOODER = "127.0.0.66"


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Site]:
    """A site that lets a stranger ask 10 times a second."""
    with Site(tmp_path / "site", users=USERS, limits={"requests_per_second": 10}) as site:
        yield site


@pytest.mark.item(7, "scanners get no answer", "a UDP socket")
@pytest.mark.parametrize(
    ("agent", "answered"),
    [
        ("friendly-scanner", False),
        ("SIPVicious 0.3", False),
        ("VaxSIPUserAgent/3.1", False),
        ("baresip", True),
    ],
)
def test_scanners(site: Site, agent: str, answered: bool) -> None:
    with Stranger(site.proxy) as somebody:
        somebody.send("OPTIONS", f"sip:{site.realm}", {"User-Agent": agent})
        assert is_quiet(somebody) is not answered


@pytest.mark.item(7, "names that are meant for a database get no answer", "a UDP socket")
@pytest.mark.parametrize("name", ["a'or'3=3", "a%27or%271", "1%22union", "x/*", "x" * 300])
def test_junk_in_names(site: Site, name: str) -> None:
    with Stranger(site.proxy) as somebody:
        somebody.send("REGISTER", f"sip:{site.realm}", {"From": f"<sip:{name}@{site.realm}>;tag=1"})
        somebody.send("OPTIONS", f"sip:{name}@{site.realm}")
        assert is_quiet(somebody)


@pytest.mark.item(
    7,
    "a flood from one address is cut off; others, and a good phone at that address, are served",
    "scripted phones",
)
def test_flood_from_one_address(strict: Site) -> None:
    with (
        Stranger(strict.proxy, FLOODER) as flooder,
        Stranger(strict.proxy, FLOODER) as phone,
        Stranger(strict.proxy) as other,
    ):
        assert try_register(phone, strict.account("flat1")).code == 200
        for _ in range(300):
            flooder.send("OPTIONS", f"sip:{strict.realm}")
        assert wait_until(lambda: is_quiet(flooder, 0.05), 2.0)
        with pytest.raises(TimeoutError):
            flooder.ask("OPTIONS", f"sip:{strict.realm}", timeout=0.3)
        assert try_register(phone, strict.account("flat1")).code == 200
        assert other.ask("OPTIONS", f"sip:{strict.realm}").code == 200
        # Only what he does now counts: when he is quiet, he is served again.
        assert wait_until(lambda: serves(strict, flooder), 8.0, 0.5)


@pytest.mark.item(7, "a user who asks without end is told to wait", "scripted phone")
def test_one_user_takes_not_everything(strict: Site) -> None:
    account, uri = strict.account("flat1"), strict.uri("nobody")
    who = {"From": f"<{account.uri}>;tag=1"}
    with Stranger(strict.proxy) as phone, Stranger(strict.proxy) as other:
        assert try_register(phone, account).code == 200
        answers = []
        for _ in range(30):
            challenge = phone.ask("OPTIONS", uri, who)
            answers.append(phone.ask("OPTIONS", uri, who | proof(challenge, account, "OPTIONS", uri)).code)
        assert (answers[0], answers[-1]) == (404, 503)
        assert try_register(other, strict.account("flat2")).code == 200


@pytest.mark.item(7, "nobody, not even a user, has anything relayed elsewhere", "scripted phones")
def test_no_relay(site: Site) -> None:
    account = site.account("door")
    with Stranger(site.proxy) as door, Stranger(site.proxy) as flat, Stranger(site.proxy) as victim:
        elsewhere = f"sip:victim@{victim.address}"
        preloaded = {"Route": f"<sip:{site.proxy};lr>, <sip:{victim.address};lr>"}
        from_us = {"From": f"<{account.uri}>;tag=1"}
        # To another domain, and to a number in another domain, by somebody with the right name.
        assert door.ask("INVITE", elsewhere, from_us).code == 403
        assert door.ask("INVITE", f"sip:+4930123456@{victim.address};user=phone", from_us).code == 403
        # A user with his password, and a Route of his own making: it leads nowhere and is not passed on.
        register(site, "flat1", flat)
        uri, who = site.uri("flat1"), from_us | preloaded
        door.send("MESSAGE", uri, who | proof(door.ask("MESSAGE", uri, who), account, "MESSAGE", uri))
        arrived = Reply(0, flat.receive())
        assert (arrived.text.split()[0], arrived.header("Route")) == ("MESSAGE", "")
        flat.reply(arrived.text, 200)
        assert wait_answer(door).code == 200
        # A dialog that was never made here, also with the key of another one.
        call = Call(door, account, site.uri("flat1"))
        call.begin()
        invite = wait_request(flat, "INVITE")
        key = re.findall("(;key=[0-9a-f]+)", Reply(0, invite).header("Record-Route"))[0]
        flat.reply(invite, 486)
        assert call.result().code == 486
        forged = {
            "To": f"<{elsewhere}>;tag=made-up",
            "Route": f"<sip:{site.proxy};lr{key}>, <sip:{victim.address};lr>",
        }
        assert door.ask("BYE", elsewhere, from_us | forged).code == 481
        assert is_quiet(victim)


@pytest.mark.item(7, "no answer names the software", "scripted phones")
def test_no_software_names(site: Site) -> None:
    with Stranger(site.proxy) as phone, Stranger(site.proxy) as door:
        answers = [
            phone.ask("OPTIONS", f"sip:{site.realm}"),
            phone.ask("INVITE", site.uri("flat1")),
            phone.ask("INVITE", "sip:x@elsewhere.example"),
            phone.ask("CANCEL", site.uri("flat1")),
            phone.ask("BYE", site.uri("flat1"), {"To": f"<{site.uri('flat1')}>;tag=1"}),
            phone.ask("OPTIONS", f"sip:{site.realm}", {"Max-Forwards": "0"}),
            try_register(phone, site.account("flat1"), expires="1"),
            try_register(phone, site.account("flat1")),
        ]
        call = Call(door, site.account("door"), site.uri("flat1"))
        call.begin()
        relayed = phone.receive()
        phone.reply(relayed, 486)
        answers.append(call.result())
    texts = [answer.text for answer in answers] + [relayed]
    assert [answer.code for answer in answers] == [200, 407, 403, 481, 481, 483, 423, 200, 486]
    assert [text for text in texts if re.search("kamailio|^(Server|User-Agent):", text, re.I | re.M)] == []


@pytest.mark.item(
    7, "the last quarter of the memory is for those who have proved who they are", "scripted phones"
)
def test_memory_is_kept_for_good_phones(site: Site) -> None:
    with Stranger(site.proxy) as phone, Stranger(site.proxy) as stranger:
        assert try_register(phone, site.account("flat1")).code == 200
        number = 0
        while int(site.ask("core.shmmem")["result"]["free"]) > 7_900_000:
            site.ask("htable.sets", "spent", f"filling{number}", "x" * 30_000)
            number += 1
        with pytest.raises(TimeoutError):
            stranger.ask("OPTIONS", f"sip:{site.realm}", timeout=0.3)
        assert try_register(phone, site.account("flat1")).code == 200
        site.ask("htable.flush", "spent")
        assert stranger.ask("OPTIONS", f"sip:{site.realm}").code == 200


@pytest.mark.item(
    7, "guesses from hundreds of addresses take less than a megabyte of shared memory", "scripted phones"
)
def test_memory_under_guesses(site: Site) -> None:
    def used() -> int:
        return int(site.ask("core.shmmem")["result"]["used"])

    guess = site.account("flat1")
    with Stranger(site.proxy) as phone:
        assert try_register(phone, guess).code == 200
        before = used()
        for number in range(1, 201):
            with Stranger(site.proxy, f"127.0.{number}.9") as thief:
                for line in range(3):
                    who = {"From": f"<sip:guess{line}@{site.realm}>;tag=1", "To": f"<sip:guess@{site.realm}>"}
                    challenge = thief.ask("REGISTER", f"sip:{site.realm}", who)
                    digest = proof(challenge, guess, "REGISTER", f"sip:{site.realm}")
                    digest = {name: value.replace("flat1", f"guess{line}") for name, value in digest.items()}
                    assert thief.ask("REGISTER", f"sip:{site.realm}", who | digest).code == 401
        assert 0 < used() - before < 1_000_000
