"""Who is who, and where: digests, contacts, and what is left after a power cut."""

from __future__ import annotations

import hashlib
import re
import secrets
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.demo.account import Account
from deploy.demo.phone import Phone
from deploy.demo.program import wait_until
from deploy.demo.site import Site
from deploy.demo.stranger import Reply, Stranger, proof
from intercom.site.users import ha1
from tests.integration.conftest import USERS
from tests.integration.site.wire import Call, try_register, wait_request

ELSEWHERE = "127.0.0.66"


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[Site]:
    """A site whose flat1 has SHA-256; all others have MD5."""
    with Site(tmp_path / "site", users=USERS) as site:
        site.store.set_password("flat1", USERS["flat1"], digest="SHA-256")
        site.reload()
        yield site


def challenge_of(site: Site, phone: Stranger, user: str = "flat1") -> Reply:
    return phone.ask("REGISTER", f"sip:{site.realm}", who(site, user))


def who(site: Site, user: str = "flat1") -> dict[str, str]:
    return {"From": f"<{site.uri(user)}>;tag=1", "To": f"<{site.uri(user)}>"}


def refused(site: Site, whom: str) -> int:
    """For how many seconds the server refuses this address, or user from an address."""
    reply = site.ask("htable.get", "refused", whom)
    return int(reply["result"]["item"]["value"]) if "result" in reply else 0


@pytest.mark.item(
    1, "every device by its own digest, MD5 and SHA-256 side by side", "scripted phones, baresip"
)
def test_every_device_by_its_own_digest(tmp_path: Path, mixed: Site) -> None:
    with Stranger(mixed.proxy) as somebody, Phone(tmp_path / "flat2", mixed.account("flat2")) as flat2:
        flat2.wait_registered()
        asked = {user: challenge_of(mixed, somebody, user) for user in ("flat1", "flat2", "nobody")}
        assert {
            user: re.findall(r"algorithm=([\w-]+)", challenge.header("WWW-Authenticate"))
            for user, challenge in asked.items()
        } == {"flat1": ["SHA-256"], "flat2": ["MD5"], "nobody": ["MD5"]}
        assert try_register(somebody, mixed.account("flat1")).code == 200

        call = Call(somebody, mixed.account("flat1"), mixed.uri("flat2"))
        call.begin()
        assert flat2.wait_ringing().peer == mixed.uri("flat1")
        call.cancel()
        assert call.result().code == 487


@pytest.mark.item(1, "a SHA-256 device cannot be talked down to MD5, nor out of qop", "scripted phones")
def test_no_downgrade(mixed: Site) -> None:
    account, uri = mixed.account("flat1"), f"sip:{mixed.realm}"
    with Stranger(mixed.proxy) as phone:
        challenge = challenge_of(mixed, phone)
        weaker = Reply(challenge.code, challenge.text.replace("SHA-256", "MD5"))
        answer = phone.ask("REGISTER", uri, who(mixed) | proof(weaker, account, "REGISTER", uri))
        assert (answer.code, "SHA-256" in answer.text) == (401, True)
        # A nonce of the MD5 sort, which only the other devices are given, is of no use either.
        other = challenge_of(mixed, phone, "flat2")
        answer = phone.ask("REGISTER", uri, who(mixed) | proof(other, account, "REGISTER", uri))
        assert (answer.code, "SHA-256" in answer.text) == (401, True)
        assert phone.ask("REGISTER", uri, who(mixed) | old_proof(answer, mixed)).code == 401
        # The right digest under a wrong label, and without the parameter that it was made with.
        for right, changed in (("algorithm=SHA-256", "algorithm=MD5"), ("qop=auth, ", "")):
            digest = proof(challenge_of(mixed, phone), account, "REGISTER", uri)["Authorization"]
            forged = {"Authorization": digest.replace(right, changed)}
            assert phone.ask("REGISTER", uri, who(mixed) | forged).code == 401
        assert mixed.registered("flat1") == []
        assert try_register(phone, account).code == 200


def old_proof(challenge: Reply, site: Site) -> dict[str, str]:
    """The right digest as RFC 2069 had it, without qop: nothing in it says that it is new."""
    nonce = re.findall('nonce="(.*?)"', challenge.header("WWW-Authenticate"))[0]

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    ha1 = digest(f"flat1:{site.realm}:{USERS['flat1']}")
    response = digest(f"{ha1}:{nonce}:{digest(f'REGISTER:sip:{site.realm}')}")
    return {
        "Authorization": f'Digest username="flat1", realm="{site.realm}", nonce="{nonce}", '
        f'uri="sip:{site.realm}", response="{response}", algorithm=SHA-256'
    }


@pytest.mark.item(1, "a digest counts once, here, and for 300 s", "scripted phones")
@pytest.mark.parametrize("user", ["flat1", "flat2"], ids=["SHA-256", "MD5"])
def test_a_digest_counts_once_and_only_here(mixed: Site, user: str) -> None:
    account, uri = mixed.account(user), f"sip:{mixed.realm}"
    with Stranger(mixed.proxy) as phone, Stranger(mixed.proxy, ELSEWHERE) as thief:

        def digest() -> dict[str, str]:
            return who(mixed, user) | proof(challenge_of(mixed, phone, user), account, "REGISTER", uri)

        elsewhere = thief.ask("REGISTER", uri, digest())
        assert (elsewhere.code, elsewhere.text.count("stale=true")) == (401, 1)
        seen = digest()
        assert phone.ask("REGISTER", uri, seen).code == 200
        again = phone.ask("REGISTER", uri, seen)
        assert (again.code, again.text.count("stale=true")) == (401, 1)


@pytest.mark.item(1, "stale=true only for the right password and an old nonce of ours", "scripted phones")
def test_old_and_invented_nonces(mixed: Site) -> None:
    uri, right = f"sip:{mixed.realm}", mixed.account("flat1")
    wrong = replace(right, password="guess")
    key = (mixed.folder / "site.key").read_text()
    now = time.time()

    def nonce(seconds_ago: float, key: str = key) -> str:
        stamp = f"{now - seconds_ago:.6f}"
        return f"{stamp}.{hashlib.sha256(f'nonce{key}{stamp}127.0.0.1'.encode()).hexdigest()[:32]}"

    with Stranger(mixed.proxy) as phone:
        challenge = challenge_of(mixed, phone)

        def answer(value: str, account: Account = right) -> tuple[int, int]:
            own = Reply(401, re.sub('nonce=".*?"', f'nonce="{value}"', challenge.text))
            reply = phone.ask("REGISTER", uri, who(mixed) | proof(own, account, "REGISTER", uri))
            return reply.code, reply.text.count("stale=true")

        assert answer(nonce(1, "0" * 32), wrong) == (401, 0)
        assert answer(nonce(301), wrong) == (401, 0)
        assert answer(nonce(-60), wrong) == (401, 0)
        assert answer("x" * 60) == (401, 1)
        assert answer(nonce(301)) == (401, 1)
        assert answer(nonce(-60)) == (401, 1)
        # None of these was a wrong password: a nonce that was not given out here proves no attempt.
        assert site_count(mixed, "127.0.0.1") == 0
        assert answer(nonce(290)) == (200, 0)


def site_count(site: Site, address: str) -> int:
    """How many wrong passwords the server has counted from an address."""
    reply = site.ask("htable.get", "wrong", address)
    return int(reply["result"]["item"]["value"]) if "result" in reply else 0


@pytest.mark.item(
    1, "a digest for another URI is refused; the server's own address will do", "scripted phones"
)
@pytest.mark.parametrize("user", ["flat1", "flat2"], ids=["SHA-256", "MD5"])
def test_a_digest_is_for_one_uri(mixed: Site, user: str) -> None:
    account, uri = mixed.account(user), f"sip:{mixed.realm}"
    with Stranger(mixed.proxy) as phone:
        for other, code in (
            ("sip:elsewhere.example", 400),
            (mixed.uri("door"), 400),
            (f"sip:{mixed.proxy}", 200),
            (uri + ";transport=udp", 200),
        ):
            digest = proof(challenge_of(mixed, phone, user), account, "REGISTER", other)
            assert phone.ask("REGISTER", uri, who(mixed, user) | digest).code == code


@pytest.mark.item(
    1, "several contacts; expiry between 10 s and an hour, 300 s if none is asked for", "scripted phones"
)
def test_contacts_and_their_expiry(site: Site) -> None:
    account = site.account("flat1")
    with Stranger(site.proxy) as phone:
        for number in range(8):
            contact = f"<sip:flat1@{phone.address};line={number}>"
            assert try_register(phone, account, contact=contact, expires="60").code == 200
        assert len(site.registered("flat1")) == 8

        gone = try_register(phone, account, contact="*", expires="0")
        assert (gone.code, site.registered("flat1")) == (200, [])
        brief = try_register(phone, account, expires="9")
        assert (brief.code, brief.header("Min-Expires")) == (423, "10")
        given = [try_register(phone, account, expires=asked) for asked in ("10", "86400", "")]
        assert [re.findall(r"expires=(\d+)", reply.header("Contact")) for reply in given] == [
            ["10"],
            ["3600"],
            ["300"],
        ]


@pytest.mark.item(1, "a ninth contact takes the place of the one silent for longest", "scripted phone")
def test_a_phone_with_a_new_port_is_never_kept_out(site: Site) -> None:
    account = site.account("flat1")

    def line(number: int) -> str:
        return f"sip:flat1@127.0.0.1:{5000 + number}"

    with Stranger(site.proxy) as phone:
        for number in range(8):
            assert try_register(phone, account, contact=f"<{line(number)}>").code == 200
        # The server counts in seconds, and its clock may be some ms late.
        next_second = int(time.time()) + 1.1
        assert wait_until(lambda: time.time() > next_second, 2.0)
        assert try_register(phone, account, contact=f"<{line(0)}>").code == 200
        for number in range(8, 14):
            assert try_register(phone, account, contact=f"<{line(number)}>").code == 200
        assert set(site.registered("flat1")) == {line(number) for number in (0, *range(7, 14))}
        site.restart()
        assert len(site.wait_registered("flat1", contacts=8)) == 8


@pytest.mark.item(1, "a phone behind another proxy is called along its Path", "scripted phone and proxy")
def test_path(site: Site) -> None:
    with Stranger(site.proxy) as edge, Stranger(site.proxy) as door:
        path = f"<sip:{edge.address};lr>"
        answer = try_register(
            edge, site.account("flat1"), path=path, supported="path", contact="<sip:flat1@192.0.2.1>"
        )
        assert (answer.code, answer.header("Path")) == (200, path)
        call = Call(door, site.account("door"), site.uri("flat1"))
        call.begin()
        invite = wait_request(edge, "INVITE")
        assert invite.startswith("INVITE sip:flat1@192.0.2.1 ")
        assert path in Reply(0, invite).header("Route")
        edge.reply(invite, 480)
        assert call.result().code == 480


@pytest.mark.item(1, "an outbound phone is called over its own flow (RFC 5626)", "scripted phone")
def test_outbound(site: Site) -> None:
    contact = '<sip:flat1@192.0.2.1:5060;ob>;reg-id=1;+sip.instance="<urn:uuid:0-1>"'
    with Stranger(site.proxy) as phone, Stranger(site.proxy) as door:
        answer = try_register(phone, site.account("flat1"), supported="path, outbound", contact=contact)
        assert (answer.code, answer.header("Require")) == (200, "outbound")
        call = Call(door, site.account("door"), site.uri("flat1"))
        call.begin()
        invite = wait_request(phone, "INVITE")
        assert invite.startswith("INVITE sip:flat1@192.0.2.1:5060")
        phone.reply(invite, 480)
        assert call.result().code == 480


@pytest.mark.item(1, "the keep-alive of outbound phones is answered (STUN)", "a UDP socket")
def test_stun_keep_alive(site: Site) -> None:
    binding = b"\0\1\0\0\x21\x12\xa4\x42" + secrets.token_bytes(12)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.settimeout(2.0)
        phone.sendto(binding, (site.address, site.port))
        answer = phone.recv(1500)
    assert (answer[:2], answer[4:20]) == (b"\1\1", binding[4:])


@pytest.mark.item(1, "a refresh outlives SIGKILL too", "scripted phone")
def test_a_refresh_is_kept(site: Site) -> None:
    with Stranger(site.proxy) as phone:
        assert try_register(phone, site.account("flat1"), expires="60").code == 200
        assert try_register(phone, site.account("flat1"), expires="600").code == 200
    site.kill()
    site.restart()
    site.wait_registered("flat1", 2.0)
    (kept,) = site.ask("ul.lookup", "location", "flat1")["result"]["Contacts"]
    assert 500 < kept["Contact"]["Expires"] <= 600


@pytest.mark.item(
    1, "what was answered with 200 is there after SIGKILL, with two processes writing", "scripted phones"
)
def test_no_registration_is_lost_by_a_kill(tmp_path: Path) -> None:
    users = {f"flat{number}": "secret" for number in range(32)}
    known: set[str] = set()

    def register_all(first: int) -> None:
        with Stranger(site.proxy) as phone:
            for line in range(8):
                for number in range(first, 32, 4):
                    contact = f"sip:flat{number}@{phone.address};line={line}"
                    try:
                        answer = try_register(phone, site.account(f"flat{number}"), contact=f"<{contact}>")
                    except (ConnectionRefusedError, TimeoutError):
                        return
                    assert answer.code == 200
                    known.add(contact)

    with Site(tmp_path / "site", users=users) as site, ThreadPoolExecutor(4) as phones:
        done = [phones.submit(register_all, first) for first in range(4)]
        assert wait_until(lambda: len(known) > 100, 10.0, 0.001)
        site.kill()
        for phone in done:
            phone.result()
        site.restart()
        # The first processes answer while the last rows are still being read.
        assert wait_until(
            lambda: known <= {contact for user in users for contact in site.registered(user)}, 2.0
        )


@pytest.mark.item(
    1, "five wrong passwords, and the place is refused for 10 s, doubling to a minute", "scripted phones"
)
def test_guessing_gets_slower(site: Site) -> None:
    right = site.account("flat1")
    wrong = replace(right, password="guess")
    with Stranger(site.proxy, ELSEWHERE) as thief, Stranger(site.proxy) as phone:
        answers = {try_register(thief, wrong).code for _ in range(4)}
        assert (answers, refused(site, f"{ELSEWHERE}:flat1")) == ({401}, 0)
        seconds = []
        for _ in range(7):
            assert try_register(thief, wrong).code == 401
            seconds.append(refused(site, f"{ELSEWHERE}:flat1"))
            # Now even the right password is of no use, and no try is looked at.
            assert try_register(thief, right).code == 401
            site.ask("htable.delete", "refused", f"{ELSEWHERE}:flat1")
        assert seconds == [10, 20, 40, 60, 60, 60, 60]
        assert try_register(phone, right).code == 200


@pytest.mark.item(1, "a right password ends the count of the wrong ones before it", "scripted phone")
def test_a_typing_mistake_is_forgiven(site: Site) -> None:
    right = site.account("flat1")
    with Stranger(site.proxy) as phone:
        for _ in range(2):
            for _ in range(4):
                assert try_register(phone, replace(right, password="gess")).code == 401
            assert try_register(phone, right).code == 200
    assert refused(site, "127.0.0.1:flat1") == 0


@pytest.mark.long
@pytest.mark.item(1, "the refusal ends after its 10 s", "scripted phone")
def test_a_refusal_ends(site: Site) -> None:
    right = site.account("flat1")
    with Stranger(site.proxy) as phone:
        for _ in range(5):
            try_register(phone, replace(right, password="guess"))
        begin = time.monotonic()
        assert wait_until(lambda: try_register(phone, right).code == 200, 20.0, 0.5)
        assert 9.0 < time.monotonic() - begin < 13.0


@pytest.mark.item(1, "user or password wrong: the same answers, also when refused", "scripted phones")
def test_no_hint_whether_there_is_such_a_user(site: Site) -> None:
    def story(user: str, source: str) -> list[tuple[int, str]]:
        guess = replace(site.account("flat1"), user=user, password="guess")
        with Stranger(site.proxy, source) as thief:
            answers = [try_register(thief, guess) for _ in range(7)]
        return [
            (answer.code, re.sub('nonce=".*?"', "", answer.header("WWW-Authenticate"))) for answer in answers
        ]

    assert story("flat1", ELSEWHERE) == story("nobody", "127.0.0.67")


@pytest.mark.item(1, "who guesses many users keeps nobody at his address out", "scripted phones")
def test_many_users_from_one_address(site: Site) -> None:
    with Stranger(site.proxy, ELSEWHERE) as thief, Stranger(site.proxy, ELSEWHERE) as phone:
        for number in range(40):
            guess = replace(site.account("flat1"), user=f"guess{number}", password="guess")
            assert try_register(thief, guess).code == 401
        assert try_register(phone, site.account("flat1")).code == 200


@pytest.mark.item(1, "nobody gets in under a name that does not exist", "scripted phones")
@pytest.mark.parametrize(
    "secret", [b"no such user" + bytes(20), bytes(32), b""], ids=["the text", "zeros", "nothing"]
)
def test_no_password_of_a_user_who_does_not_exist(site: Site, secret: bytes) -> None:
    """Neither on a fresh worker nor after one that has just seen a right password."""
    with Stranger(site.proxy) as phone, Stranger(site.proxy, ELSEWHERE) as ghost:
        assert as_ghost(ghost, site, secret) == 401
        assert try_register(phone, site.account("flat1")).code == 200
        own = ha1("flat1", site.realm, USERS["flat1"]).encode()
        assert as_ghost(ghost, site, secret) == 401
        assert as_ghost(ghost, site, b"no such user\0" + own[13:]) == 401
    assert site.registered("ghost") == []


def as_ghost(ghost: Stranger, site: Site, secret: bytes) -> int:
    """The answer to somebody who registers as a user who does not exist, with what he takes for a HA1."""
    uri = f"sip:{site.realm}"
    who = {"From": f"<sip:ghost@{site.realm}>;tag=1", "To": f"<sip:ghost@{site.realm}>"}
    challenge = ghost.ask("REGISTER", uri, who).header("WWW-Authenticate")
    nonce = re.search('nonce="(.*?)"', challenge)
    assert nonce
    request = hashlib.md5(f"REGISTER:{uri}".encode()).hexdigest()
    text = secret + f":{nonce[1]}:00000001:once:auth:{request}".encode()
    digest = (
        f'Digest username="ghost", realm="{site.realm}", nonce="{nonce[1]}", uri="{uri}", algorithm=MD5, '
        f'qop=auth, nc=00000001, cnonce="once", response="{hashlib.md5(text).hexdigest()}"'
    )
    return ghost.ask("REGISTER", uri, who | {"Authorization": digest}).code


@pytest.mark.item(1, "who guesses from everywhere keeps nobody out", "scripted phones")
def test_the_true_phone_is_not_locked_out(site: Site) -> None:
    right = site.account("flat1")
    wrong = replace(right, password="guess")
    with Stranger(site.proxy) as phone, Stranger(site.proxy, ELSEWHERE) as new:
        assert try_register(phone, right).code == 200
        for number in range(50):
            with Stranger(site.proxy, f"127.0.3.{number + 1}") as thief:
                assert try_register(thief, wrong).code == 401
        assert try_register(new, right).code == 200
        assert try_register(phone, right).code == 200
