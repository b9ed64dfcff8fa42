"""Who is there and who is talking, as those see it who watch."""

from __future__ import annotations

import os
import re
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from deploy.demo.account import Transport
from deploy.demo.linphone import Linphone
from deploy.demo.phone import Phone
from deploy.demo.program import wait_until
from deploy.demo.scenarios import answers, caller, pause
from deploy.demo.sipp import Sipp
from deploy.demo.site import Site
from deploy.demo.station import Station, settings
from deploy.demo.stranger import Reply, Stranger, proof
from tests.integration.conftest import USERS
from tests.integration.site.wire import (
    SDP,
    Call,
    header,
    headers,
    is_quiet,
    register,
    serves,
    try_register,
    wait_answer,
    wait_request,
)

OPEN = (
    '<?xml version="1.0"?><presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:flat1@site.example">'
    '<tuple id="a"><status><basic>{}</basic></status></tuple></presence>'
)


class Watcher(Stranger):
    """A user who has subscribed to another one's state, and answers each NOTIFY.

    Args:
        site: where.
        user: who watches.
        whom: the user who is watched.
        package: presence or dialog.
        believes: `address:port` that it thinks it has; its true one when empty.
    """

    def __init__(self, site: Site, user: str, whom: str, package: str, believes: str = "") -> None:
        super().__init__(site.proxy)
        self._believes = believes or self.address
        self._site = site
        self._account = site.account(user)
        self._whom = site.uri(whom)
        self._package = package
        self._answer = self._subscribe()
        assert self._answer.code == 200, self._answer.text

    def _subscribe(self, seconds: int = 600, **lines: str) -> Reply:
        uri = lines.pop("uri", self._whom)
        who = {
            "From": f"<{self._account.uri}>;tag=watcher",
            "Event": self._package,
            "Expires": str(seconds),
            "Contact": f"<sip:watcher@{self._believes}>",
            **{name.replace("_", "-"): value for name, value in lines.items()},
        }
        return ask_with_password(
            self, self._site, self._account.user, "SUBSCRIBE", uri, who, via=self._believes
        )

    def subscribe_again(self, seconds: int = 600) -> Reply:
        """Refresh the subscription, or end it with 0 seconds."""
        contact = re.search("<(.*?)>", self._answer.header("Contact"))
        assert contact is not None
        same = {"Call_ID": self._answer.header("Call-ID"), "To": self._answer.header("To")}
        number = int(self._answer.header("CSeq").split()[0])
        again = self._subscribe(seconds, uri=contact[1], CSeq=f"{number + 1} SUBSCRIBE", **same)
        if again.code == 200:
            self._answer = again
        return again

    def wait_state(self, *states: str, timeout: float = 3.0) -> str:
        """Block until a NOTIFY tells exactly these states; returns it. Other NOTIFYs are answered too.

        Raises:
            TimeoutError: none did.
        """
        while True:
            notify = wait_request(self, "NOTIFY", timeout)
            self.reply(notify, 200)
            if re.findall(r"<(?:state|basic)>(\w+)<", notify) == list(states):
                return notify


def ask_with_password(
    somebody: Stranger,
    site: Site,
    user: str,
    method: str,
    uri: str,
    lines: dict[str, str],
    body: str = "",
    via: str = "",
) -> Reply:
    """A request with the user's password; returns the answer, whatever it is."""

    def line() -> dict[str, str]:
        branch = f"z9hG4bK{secrets.token_hex(8)}"
        return {"Via": f"SIP/2.0/UDP {via or somebody.address};branch={branch};rport"}

    lines = {"From": f"<{site.uri(user)}>;tag=1", **lines}
    challenge = somebody.ask(method, uri, lines | line(), body)
    assert challenge.code == 407, challenge.text
    number = int(challenge.header("CSeq").split()[0])
    again = {"Call-ID": challenge.header("Call-ID"), "CSeq": f"{number + 1} {method}"}
    credentials = proof(challenge, site.account(user), method, uri)
    return somebody.ask(method, uri, lines | line() | again | credentials, body)


def publish(phone: Stranger, site: Site, user: str, basic: str, **lines: str) -> Reply:
    """A phone publishes its own state."""
    headers = {"Event": "presence", "Content-Type": "application/pidf+xml", "Expires": "60"}
    headers |= {name.replace("_", "-"): value for name, value in lines.items()}
    body = OPEN.format(basic) if basic else ""
    return ask_with_password(phone, site, user, "PUBLISH", site.uri("flat1"), headers, body)


@contextmanager
def first_news_in_vain(site: Site) -> Iterator[Callable[[], None]]:
    """The server's first word to itself from now on is in vain: it is deaf for more than 5 s.

    Yields what makes it deaf; until then nothing is told. In the end it hears again, and says it once more.
    """
    running = site.ask("core.ps")["result"]
    processes = list(zip(running[::2], running[1::2], strict=True))
    ears = [number for number, name in processes if name.startswith("udp receiver")]
    mouth = [number for number, name in processes if name.startswith("RTIMER")]

    def send(numbers: list[int], what: signal.Signals) -> None:
        for number in numbers:
            os.kill(number, what)

    send(mouth, signal.SIGSTOP)
    try:
        yield lambda: send(ears, signal.SIGSTOP)
        send(mouth, signal.SIGCONT)
        assert wait_until(lambda: "again" in str(site.ask("htable.dump", "telling")["result"]), 8.0)
    finally:
        send(ears + mouth, signal.SIGCONT)


@pytest.fixture
def parts() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.item(5, "presence: open while the phone is registered, else closed", "scripted agents")
def test_presence_is_whether_a_phone_is_registered(site: Site, parts: ExitStack) -> None:
    watcher = parts.enter_context(Watcher(site, "door", "flat1", "presence"))
    assert 'entity="sip:flat1@site.example"' in watcher.wait_state("closed")
    phone = parts.enter_context(Stranger(site.proxy))
    register(site, "flat1", phone)
    watcher.wait_state("open")
    gone = try_register(phone, site.account("flat1"), contact="*", expires="0")
    assert gone.code == 200
    watcher.wait_state("closed")


@pytest.mark.item(5, "a phone that publishes for itself is believed, until it stops", "scripted agents")
def test_a_phone_publishes_for_itself(site: Site, parts: ExitStack) -> None:
    phone = parts.enter_context(Stranger(site.proxy))
    register(site, "flat1", phone)
    watcher = parts.enter_context(Watcher(site, "door", "flat1", "presence"))
    watcher.wait_state("open")

    published = publish(phone, site, "flat1", "closed")
    assert published.code == 200
    watcher.wait_state("closed")
    again = publish(phone, site, "flat1", "open", SIP_If_Match=published.header("SIP-ETag"))
    assert again.code == 200
    watcher.wait_state("open")
    # The phone only wants to go on, but has to say again with what.
    assert publish(phone, site, "flat1", "", SIP_If_Match=again.header("SIP-ETag")).code == 412
    ended = publish(phone, site, "flat1", "", SIP_If_Match=again.header("SIP-ETag"), Expires="0")
    assert ended.code == 200
    # What the server sees of him is told again: he is registered.
    assert 'id="site"' in watcher.wait_state("open")


@pytest.mark.item(5, "a user without a phone is closed, whatever he has published", "scripted agents")
def test_a_phone_goes_without_a_word(site: Site, parts: ExitStack) -> None:
    phone = parts.enter_context(Stranger(site.proxy))
    register(site, "flat1", phone)
    assert publish(phone, site, "flat1", "open").code == 200
    watcher = parts.enter_context(Watcher(site, "door", "flat1", "presence"))
    watcher.wait_state("open")
    assert try_register(phone, site.account("flat1"), contact="*", expires="0").code == 200
    watcher.wait_state("closed", timeout=1.0)
    register(site, "flat1", phone)
    watcher.wait_state("open")


@pytest.mark.item(5, "what one phone withdraws is not what another has published", "scripted agents")
def test_two_phones_publish(site: Site, parts: ExitStack) -> None:
    desk, mobile = (parts.enter_context(Stranger(site.proxy)) for _ in range(2))
    register(site, "flat1", desk)
    assert publish(desk, site, "flat1", "closed").code == 200
    published = publish(mobile, site, "flat1", "open")
    watcher = parts.enter_context(Watcher(site, "door", "flat1", "presence"))
    watcher.wait_state("open")
    # Not even a phone that has nothing new to say can take it back.
    assert publish(desk, site, "flat1", "closed").code == 200
    watcher.wait_state("open")
    ended = publish(mobile, site, "flat1", "", SIP_If_Match=published.header("SIP-ETag"), Expires="0")
    assert ended.code == 200
    watcher.wait_state("closed")
    parts.enter_context(Watcher(site, "flat2", "flat1", "presence")).wait_state("closed")


@pytest.mark.item(5, "nobody publishes for another, and no phone for its lamp", "scripted agents")
def test_what_may_not_be_published(site: Site, parts: ExitStack) -> None:
    phone = parts.enter_context(Stranger(site.proxy))
    assert phone.ask("PUBLISH", site.uri("flat1"), {"Event": "presence"}, OPEN.format("open")).code == 407
    assert publish(phone, site, "flat2", "open").code == 403
    assert publish(phone, site, "flat1", "open", Event="dialog").code == 489
    assert publish(phone, site, "flat1", "open", Expires="4294967295").header("Expires") == "300"
    assert publish(phone, site, "flat1", "<!ENTITY a 'a'>").code == 400
    assert publish(phone, site, "flat1", "x" * 5000).code == 413
    assert publish(phone, site, "flat1", "open", SIP_If_Match="made.up.1").code == 412


@pytest.mark.item(5, "only users watch users, only what there is", "scripted agents")
def test_what_may_not_be_watched(site: Site, parts: ExitStack) -> None:
    stranger = parts.enter_context(Stranger(site.proxy))
    assert stranger.ask("SUBSCRIBE", site.uri("flat1"), {"Event": "dialog"}).code == 407

    def subscribe(whom: str, package: str) -> Reply:
        return ask_with_password(stranger, site, "door", "SUBSCRIBE", site.uri(whom), {"Event": package})

    assert subscribe("nobody", "dialog").code == 404
    for package in ("message-summary", "dialog;sla", "presence.winfo", "xcap-diff"):
        assert subscribe("flat1", package).code == 489
    assert subscribe("flat1", "dialog").header("Expires") == "300"


@pytest.mark.item(5, "a lamp goes out when its phone does not watch any more", "scripted agents")
def test_a_subscription_ends(site: Site, parts: ExitStack) -> None:
    watcher = parts.enter_context(Watcher(site, "door", "flat1", "presence"))
    watcher.wait_state("closed")
    assert watcher.subscribe_again().code == 200
    watcher.wait_state("closed")
    assert watcher.subscribe_again(0).code == 200
    assert "terminated" in header(wait_request(watcher, "NOTIFY"), "Subscription-State")
    phone = parts.enter_context(Stranger(site.proxy))
    register(site, "flat1", phone)
    assert is_quiet(watcher)


@pytest.mark.item(5, "softphones see each other come and go, on UDP and on TCP", "linphonec, baresip")
@pytest.mark.parametrize(
    ("transport", "transports"), [("udp", ["udp", "tcp"]), ("tcp", ["udp", "tcp"]), ("tcp", ["tcp"])]
)
def test_linphone_watches_a_baresip(tmp_path: Path, transport: Transport, transports: list[str]) -> None:
    with (
        Site(tmp_path / "site", users=USERS, listen={"transports": transports}) as site,
        Linphone(tmp_path / "flat1", site.account("flat1", transport)) as flat,
    ):
        flat.wait_registered()
        flat.watch(site.uri("flat2"))
        flat.wait_event("PRESENCE", text="Offline")
        with Phone(tmp_path / "flat2", site.account("flat2", transport)) as neighbour:
            neighbour.wait_registered()
            flat.wait_event("PRESENCE", text="Online")
        flat.wait_event("PRESENCE", text="Offline")


@pytest.mark.item(5, "lamps of both phones: off, ringing, talking, off; with whom is not told", "baresip")
def test_lamps_follow_a_call(tmp_path: Path, site: Site, parts: ExitStack) -> None:
    door = parts.enter_context(Phone(tmp_path / "door", site.account("door")))
    flat = parts.enter_context(Phone(tmp_path / "flat1", site.account("flat1")))
    door.wait_registered()
    flat.wait_registered()
    lamps = [parts.enter_context(Watcher(site, "flat2", whom, "dialog")) for whom in ("door", "flat1")]
    for lamp in lamps:
        lamp.wait_state("terminated")
    for _ in range(2):
        door.dial(site.uri("flat1"))
        flat.wait_ringing()
        ringing = [lamp.wait_state("early") for lamp in lamps]
        flat.answer()
        talking = [lamp.wait_state("confirmed") for lamp in lamps]
        door.hang_up()
        for lamp in lamps:
            lamp.wait_state("terminated")
        for calling, called in (ringing, talking):
            assert 'direction="initiator"' in calling
            assert "flat1" not in calling
            assert 'direction="recipient"' in called
            assert "door" not in called.partition("\r\n\r\n")[2]
            assert "call-id" not in calling + called


@pytest.mark.item(5, "lamps of a group: all ring, one talks, the others are off", "baresip")
def test_lamps_of_a_group(tmp_path: Path, site: Site, parts: ExitStack) -> None:
    site.store.set_group("house", ["flat1", "flat2"])
    site.reload()
    names = ("door", "flat1", "flat2")
    door, flat1, flat2 = (parts.enter_context(Phone(tmp_path / name, site.account(name))) for name in names)
    for phone in (door, flat1, flat2):
        phone.wait_registered()
    lamps = [parts.enter_context(Watcher(site, "door", whom, "dialog")) for whom in ("flat1", "flat2")]
    for lamp in lamps:
        lamp.wait_state("terminated")
    door.dial(site.uri("house"))
    for lamp in lamps:
        lamp.wait_state("early")
    flat2.wait_ringing()
    flat2.answer()
    lamps[0].wait_state("terminated")
    lamps[1].wait_state("confirmed")
    flat2.hang_up()
    lamps[1].wait_state("terminated")


@pytest.mark.item(5, "lamps go off after a refused and a given up call", "baresip")
def test_lamps_after_calls_that_failed(tmp_path: Path, site: Site, parts: ExitStack) -> None:
    door = parts.enter_context(Phone(tmp_path / "door", site.account("door")))
    flat = parts.enter_context(Phone(tmp_path / "flat1", site.account("flat1")))
    door.wait_registered()
    flat.wait_registered()
    lamps = [parts.enter_context(Watcher(site, "flat2", whom, "dialog")) for whom in ("door", "flat1")]
    for end in (flat.reject, door.hang_up):
        door.dial(site.uri("flat1"))
        flat.wait_ringing()
        for lamp in lamps:
            lamp.wait_state("early")
        end()
        for lamp in lamps:
            lamp.wait_state("terminated")


@pytest.mark.item(5, "who begins to watch during a call sees it", "baresip")
def test_a_lamp_that_comes_late(tmp_path: Path, site: Site, parts: ExitStack) -> None:
    door = parts.enter_context(Phone(tmp_path / "door", site.account("door")))
    flat = parts.enter_context(Phone(tmp_path / "flat1", site.account("flat1"), answer="auto"))
    door.wait_registered()
    flat.wait_registered()
    door.dial(site.uri("flat1"))
    door.wait_established()
    lamp = parts.enter_context(Watcher(site, "flat2", "door", "dialog"))
    lamp.wait_state("confirmed")
    door.hang_up()
    lamp.wait_state("terminated")


@pytest.mark.item(5, "a lamp goes off though the server has lost the news of it", "scripted agents")
def test_lost_news(site: Site, parts: ExitStack) -> None:
    flat, door = (parts.enter_context(Stranger(site.proxy)) for _ in range(2))
    register(site, "flat1", flat)
    lamp = parts.enter_context(Watcher(site, "flat2", "door", "dialog"))
    call = Call(door, site.account("door"), site.uri("flat1"))
    call.begin()
    flat.reply(wait_request(flat, "INVITE"), 200, {"Contact": f"<sip:phone@{flat.address}>"}, SDP)
    answer = call.result()
    call.say("ACK", answer, 2)
    lamp.wait_state("confirmed")
    flood = parts.enter_context(Stranger(site.proxy, "127.0.0.200"))
    with first_news_in_vain(site) as deaf:
        call.say("BYE", answer)
        flat.reply(wait_request(flat, "BYE"), 200)
        wait_answer(door)
        deaf()
        for _ in range(1000):
            flood.send("OPTIONS", "x" * 1000)
    lamp.wait_state("terminated")


@pytest.mark.long
@pytest.mark.item(5, "what the server hears late of itself does not count", "scripted agents")
def test_late_news(site: Site, parts: ExitStack) -> None:
    with first_news_in_vain(site) as deaf:
        watcher = parts.enter_context(Watcher(site, "door", "flat1", "presence"))
        watcher.wait_state()
        assert wait_until(lambda: site.ask("mqueue.get_size", "news")["result"]["size"] == 1, 2.0)
        assert serves(site, watcher)
        deaf()
    watcher.wait_state("closed")
    phone = parts.enter_context(Stranger(site.proxy))
    register(site, "flat1", phone)
    watcher.wait_state("open")


@pytest.mark.item(5, "a phone's lamp shows that the door rings, talks, and has ended", "station, baresip")
def test_the_lamp_shows_the_door(tmp_path: Path, site: Site, parts: ExitStack) -> None:
    flat = parts.enter_context(Phone(tmp_path / "flat1", site.account("flat1")))
    flat.wait_registered()
    text = settings(site.account("door"), [(site.uri("flat1"), 20)])
    door = parts.enter_context(Station(tmp_path / "door", USERS["door"], text))
    door.wait_registered()
    lamp = parts.enter_context(Watcher(site, "flat2", "door", "dialog"))
    lamp.wait_state("terminated")
    door.press()
    lamp.wait_state("early")
    flat.wait_ringing()
    flat.answer()
    lamp.wait_state("confirmed")
    flat.hang_up()
    lamp.wait_state("terminated")


@pytest.mark.item(5, "a phone behind a NAT is told too", "scripted agents")
def test_a_watcher_behind_a_nat(site: Site, parts: ExitStack) -> None:
    watcher = parts.enter_context(Watcher(site, "door", "flat1", "presence", "10.99.0.7:5060"))
    assert watcher.wait_state("closed").startswith("NOTIFY sip:watcher@10.99.0.7:5060 SIP/2.0")
    assert watcher.subscribe_again().code == 200
    watcher.wait_state("closed")


@pytest.mark.item(5, "after a SIGKILL a phone is told that nobody knows its subscription", "scripted agents")
def test_a_restart_ends_subscriptions(site: Site, parts: ExitStack) -> None:
    watcher = parts.enter_context(Watcher(site, "door", "flat1", "presence"))
    watcher.wait_state("closed")
    site.kill()
    site.restart()
    assert watcher.subscribe_again().code == 481
    parts.enter_context(Watcher(site, "door", "flat1", "presence")).wait_state("closed")


@pytest.mark.item(5, "what comes back to the server through a user is not its own word", "scripted agents")
def test_nobody_speaks_for_the_server(site: Site, parts: ExitStack) -> None:
    watcher = parts.enter_context(Watcher(site, "door", "flat1", "presence"))
    watcher.wait_state("closed")
    caller_phone, callee = (parts.enter_context(Stranger(site.proxy)) for _ in range(2))
    register(site, "flat2", callee)
    call = Call(caller_phone, site.account("door"), site.uri("flat2"))
    call.begin()
    # Within this call everything now goes to the server itself, by its own hand.
    itself = f"sip:flat1@{site.proxy}"
    callee.reply(wait_request(callee, "INVITE"), 200, {"Contact": f"<{itself}>"}, SDP)
    answer = call.result()
    lines = {name: answer.header(name) for name in ("From", "To", "Call-ID")}
    lines |= {"Route": ", ".join(headers(answer.text, "Record-Route")[::-1]), "CSeq": "3 PUBLISH"}
    lines |= {"Event": "presence", "Content-Type": "application/pidf+xml", "Expires": "60"}
    assert caller_phone.ask("PUBLISH", itself, lines, OPEN.format("open")).code == 481
    assert is_quiet(watcher)


@pytest.mark.long
@pytest.mark.item(5, "a phone that was switched off is closed when its time is over", "scripted agents")
def test_presence_ends_with_the_registration(site: Site, parts: ExitStack) -> None:
    phone = parts.enter_context(Stranger(site.proxy))
    contact = f"<sip:flat1@{phone.address}>"
    assert try_register(phone, site.account("flat1"), contact=contact, expires="10").code == 200
    watcher = parts.enter_context(Watcher(site, "door", "flat1", "presence"))
    watcher.wait_state("open")
    watcher.wait_state("closed", timeout=25.0)


@pytest.mark.long
@pytest.mark.item(5, "200 calls in 4 s: every lamp ends off, and nothing stays in memory", "SIPp")
def test_lamps_under_load(tmp_path: Path, site: Site, parts: ExitStack) -> None:
    flat = parts.enter_context(Sipp(tmp_path / "flat1", answers(rings_ms=50), calls=200))
    site.place("flat1", flat.contact)
    lamps = [parts.enter_context(Watcher(site, "flat2", whom, "dialog")) for whom in ("door", "flat1")]
    calls = caller(site.account("door"), site.uri("flat1"), pause(300))
    door = parts.enter_context(Sipp(tmp_path / "door", calls, site.proxy, calls=200, rate=50))
    told = dict.fromkeys(lamps, "")

    def off() -> bool:
        for lamp in lamps:
            with suppress(TimeoutError):
                told[lamp] = wait_request(lamp, "NOTIFY", 0.02)
                lamp.reply(told[lamp], 200)
        return not door.program.running and all("terminated" in notify for notify in told.values())

    assert wait_until(off, 20.0)
    assert all(is_quiet(lamp, 1.0) for lamp in lamps)
    assert door.counts().successful == 200
    assert wait_until(lambda: site.ask("dlg.stats_active")["result"]["all"] == 0, 10.0)
    assert site.ask("htable.dump", "calls")["result"] == site.ask("htable.dump", "lamps")["result"] == []
