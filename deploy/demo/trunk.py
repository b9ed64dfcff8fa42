"""Somebody else's telephone server, played by SIPp: it takes our calls, and calls us.

Rule: it does what a strict trunk does and keeps every message as it came: what it got to see is the test.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from xml.sax.saxutils import escape

from deploy.demo.program import ProgramError, free_port, wait_until
from deploy.demo.sipp import Sipp

Manner = Literal["answers", "rings", "hangs up", "is mute"]

_MANY = 1_000_000

_SDP = """\
Content-Type: application/sdp
Content-Length: [len]

v=0
o=trunk 1 1 IN IP[local_ip_type] [local_ip]
s=-
c=IN IP[media_ip_type] [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 8
a=rtpmap:8 PCMA/8000
a=ptime:20
"""
_NO_BODY = "Content-Length: 0\n"
_VIA = "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]"
_CONTACT = "Contact: <sip:trunk@[local_ip]:[local_port];transport=[transport]>"
_TAG = "tag=[pid]t[call_number]"
_END = '<label id="end"/>\n<timewait milliseconds="1"/>\n'


class Trunk:
    """A trunk that answers OPTIONS, takes registrations and does with calls what it is told.

    Args:
        folder: for its scenario, log and messages; created when missing.
        address: IPv4 address; its calls to us come from there too.
        port: its SIP port; a free one when None.
        manner: what becomes of a call to it: it "answers", "rings" until the caller gives up, "hangs up" as
            soon as it has answered, or takes the INVITE and "is mute".
        refuses: the code it refuses each call with instead.
        account: user name and password that it asks for, also when a call to it is ended; None asks nobody.
    """

    def __init__(
        self,
        folder: Path,
        address: str,
        *,
        port: int | None = None,
        manner: Manner = "answers",
        refuses: int | None = None,
        account: tuple[str, str] | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.address = address
        self.port = port or free_port(address)
        scenario = _serves(manner, refuses, account)
        self._sipp = Sipp(
            self.folder, scenario, calls=_MANY, source=address, port=self.port, keeps_messages=True
        )

    def __enter__(self) -> Self:
        self._sipp.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sipp.stop()

    @property
    def uri(self) -> str:
        """What a site calls it by."""
        return f"sip:{self.address}:{self.port}"

    def freeze(self) -> None:
        """It is silent and holds its port, until `thaw()`."""
        self._sipp.program.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen trunk go on."""
        self._sipp.program.signal(signal.SIGCONT)

    def received(self, beginning: str = "") -> list[str]:
        """The messages it got that begin so, the oldest first: "INVITE", "SIP/2.0 200", or everything."""
        return [text for text in self._messages("received") if text.startswith(beginning)]

    def sent(self) -> list[str]:
        """The messages it sent, the oldest first."""
        return self._messages("sent")

    def wait_received(self, beginning: str, count: int = 1, timeout: float = 10.0) -> str:
        """Block until it got so many messages that begin so, and return the last of them.

        Raises:
            ProgramError: it got fewer in time.
        """
        if not wait_until(lambda: len(self.received(beginning)) >= count, timeout):
            seen = [text.partition("\n")[0].strip() for text in self.received()]
            raise ProgramError(
                f"the trunk got fewer than {count} {beginning} within {timeout:g} s, but: {seen}"
            )
        return self.received(beginning)[count - 1]

    def calls(
        self,
        proxy: str,
        number: str,
        *,
        caller: str | None = None,
        to: str | None = None,
        ended_by: Literal["trunk", "phone"] = "trunk",
    ) -> Sipp:
        """Somebody out there who calls us through this trunk.

        Args:
            proxy: `address:port` of the site.
            number: user of the Request-URI.
            caller: URI in From; a number of the trunk when None.
            to: URI in To; that of the request when None.
            ended_by: the "trunk", as soon as it is answered, or the "phone".
        """
        uri = f"sip:{number}@{proxy}"
        caller = caller or f"sip:+4989987654@{self.address}"
        scenario = _calls(uri, caller, to or uri, hangs_up=ended_by == "trunk")
        return Sipp(self.folder / "calls", scenario, proxy, source=self.address, keeps_messages=True)

    def _messages(self, direction: str) -> list[str]:
        log = self.folder / "messages.log"
        if not log.exists():
            return []
        return messages(log.read_text(), direction)


def messages(log: str, direction: str) -> list[str]:
    """The messages that SIPp has "received" or "sent", as its `messages.log` shows them."""
    parts = re.split(r"^-{20,} .*\n(UDP|TCP) message (received|sent) .*\n\n", log, flags=re.MULTILINE)
    return [text for way, text in zip(parts[2::3], parts[3::3], strict=True) if way == direction]


def _serves(manner: Manner, refuses: int | None, account: tuple[str, str] | None) -> str:
    challenged, registered = "", ""
    if account:
        challenged = _challenge() + _receive("ACK") + _again("INVITE", account)
        registered = _challenge() + _again("REGISTER", account)
    if refuses is not None:
        call = _reply(refuses, "Refused") + _receive("ACK", then="end")
    elif manner == "is mute":
        call = '<pause milliseconds="60000" next="end"/>\n'
    elif manner == "rings":
        call = (
            _reply(180, "Ringing")
            + _receive("CANCEL")
            + _send(f"SIP/2.0 200 OK\n{_answer_headers(tag=True)}{_NO_BODY}")
            + _send(f"SIP/2.0 487 Request Terminated\n[$vias]{_own_headers()}{_NO_BODY}")
            + _receive("ACK", then="end")
        )
    else:
        ringing = _reply(180, "Ringing") + _reply(200, "OK", _SDP) + _receive("ACK")
        call = ringing + (_hangs_up() if manner == "hangs up" else _talks(account))
    expires = "Expires: 300\n[last_Contact:]\n"
    return _scenario(
        _receive("OPTIONS", then="pinged", optional=True)
        + _receive("REGISTER", then="registers", optional=True)
        + _receive("INVITE", actions=_keep())
        # SIPp refuses a scenario in which a variable is set and not used.
        + '<Reference variables="from,to,cseq,contact,vias"/>\n'
        + challenged
        + call
        + '<label id="pinged"/>\n'
        + _reply(200, "OK", then="end")
        + '<label id="registers"/>\n'
        + registered
        + _send(f"SIP/2.0 200 OK\n{_answer_headers(tag=True, contact=False)}{expires}{_NO_BODY}", then="end")
        + '<label id="wrong REGISTER"/>\n<label id="wrong BYE"/>\n'
        + _reply(403, "Wrong Password", tag=False, then="end")
        + '<label id="wrong INVITE"/>\n'
        + _challenge()
        + _receive("ACK")
        + _END
    )


def _talks(account: tuple[str, str] | None = None) -> str:
    """Until the other side hangs up, which may change the session as often as it likes."""
    return (
        '<label id="talks"/>\n'
        + _receive("INVITE", then="changes", optional=True)
        + _receive("BYE")
        + (_challenge(tag=False) + _again("BYE", account) if account else "")
        + _reply(200, "OK", tag=False, then="end")
        + '<label id="changes"/>\n'
        + _reply(200, "OK", _SDP, tag=False)
        + _receive("ACK", then="talks")
    )


def _hangs_up() -> str:
    bye = (
        f"BYE [$contact] SIP/2.0\n{_VIA}\n[routes]\nFrom:[$to];{_TAG}\nTo:[$from]\n[last_Call-ID:]\n"
        f"CSeq: 1 BYE\nMax-Forwards: 70\n{_NO_BODY}"
    )
    return _send(bye, retransmits=True) + '<recv response="200" next="end"/>\n'


def _challenge(*, tag: bool = True) -> str:
    # Not 407: SIPp checks nothing but Authorization.
    asks = 'WWW-Authenticate: Digest realm="trunk.example", nonce="3f9c27d1", qop="auth", algorithm=MD5\n'
    return _send(f"SIP/2.0 401 Unauthorized\n{_answer_headers(tag=tag)}{asks}{_NO_BODY}")


def _again(method: str, account: tuple[str, str]) -> str:
    """The request with the password, or on to where it is a wrong one."""
    user, password = (escape(text, {'"': "&quot;"}) for text in account)
    check = f'<verifyauth assign_to="right{method}" username="{user}" password="{password}"/>'
    return (
        _receive(method, actions=f"{check}\n{_keep()}" if method == "INVITE" else check)
        + f'<nop test="right{method}" next="right {method}"/>\n'
        + f'<nop next="wrong {method}"/>\n'
        + f'<label id="right {method}"/>\n'
    )


def _calls(uri: str, caller: str, to: str, *, hangs_up: bool) -> str:
    ends = f"From: <{caller}>;{_TAG}\nTo: <{to}>"
    more = f"{_CONTACT}\nCall-ID: [call_id]\nMax-Forwards: 70\n"
    within = f"SIP/2.0\n{_VIA}\n[routes]\n{ends}[peer_tag_param]\n{more}"
    contact = (
        '<ereg regexp="sip:[^&gt;]*" search_in="hdr" header="Contact:" check_it="true" assign_to="contact"/>'
    )
    bye = _send(f"BYE [$contact] {within}CSeq: 2 BYE\n{_NO_BODY}", retransmits=True)
    return _scenario(
        _send(f"INVITE {uri} SIP/2.0\n{_VIA}\n{ends}\n{more}CSeq: 1 INVITE\n{_SDP}", retransmits=True)
        + "".join(f'<recv response="{code}" optional="true"/>\n' for code in (100, 180, 183))
        + f'<recv response="200" rrs="true"><action>{contact}</action></recv>\n'
        + _send(f"ACK [$contact] {within}CSeq: 1 ACK\n{_NO_BODY}")
        + (f'{bye}<recv response="200"/>\n' if hangs_up else _talks() + _END)
    )


def _keep() -> str:
    """Keeps of an INVITE what later messages of this side need."""
    line = "[^[:cntrl:]]*[[:cntrl:]]+"
    kept = {
        "from": ('search_in="hdr" header="From:"', ".*"),
        "to": ('search_in="hdr" header="To:"', ".*"),
        "cseq": ('search_in="hdr" header="CSeq:"', "[0-9]+"),
        "contact": ('search_in="hdr" header="Contact:"', "sips?:[^&gt;]*"),
        "vias": ('search_in="msg"', f"(Via: {line})+"),
    }
    return "\n".join(
        f'<ereg regexp="{pattern}" {where} check_it="true" assign_to="{name}"/>'
        for name, (where, pattern) in kept.items()
    )


def _receive(method: str, *, then: str = "", optional: bool = False, actions: str = "") -> str:
    flags = (f' next="{then}"' if then else "") + (' optional="true"' if optional else "")
    if not actions:
        return f'<recv request="{method}"{flags}/>\n'
    return f'<recv request="{method}" rrs="true"{flags}><action>\n{actions}\n</action></recv>\n'


def _reply(code: int, reason: str, tail: str = _NO_BODY, *, tag: bool = True, then: str = "") -> str:
    return _send(f"SIP/2.0 {code} {reason}\n{_answer_headers(tag=tag)}{tail}", then=then)


def _answer_headers(*, tag: bool, contact: bool = True) -> str:
    """Of an answer to the request that came last; one that begins a dialog gets our tag."""
    own = f";{_TAG}" if tag else ""
    return (
        f"[last_Via:]\n[last_From:]\n[last_To:]{own}\n[last_Call-ID:]\n[last_CSeq:]\n[last_Record-Route:]\n"
        + (f"{_CONTACT}\n" if contact else "")
        + "Server: trunk 1.0\n"
    )


def _own_headers() -> str:
    """Of an answer to the INVITE when something else came after it."""
    # The variable of the Vias before it ends with a line break of its own.
    return f"From:[$from]\nTo:[$to];{_TAG}\n[last_Call-ID:]\nCSeq: [$cseq] INVITE\n"


def _send(message: str, *, retransmits: bool = False, then: str = "") -> str:
    flags = (' retrans="500"' if retransmits else "") + (f' next="{then}"' if then else "")
    return f"<send{flags}><![CDATA[\n\n{message}\n]]></send>\n"


def _scenario(steps: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="trunk">\n{steps}</scenario>\n'
