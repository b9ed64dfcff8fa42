"""Phones of a few lines each, for what can only be seen in the messages themselves.

Rule: a phone here says exactly what its test says; who shall ring, answer and talk by himself is baresip.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, field

from deploy.demo.account import Account
from deploy.demo.site import Site
from deploy.demo.stranger import Reply, Stranger, proof

SDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n"


def header(message: str, name: str) -> str:
    """The first header of that name in a request or an answer, "" when there is none."""
    return Reply(0, message).header(name)


def headers(message: str, name: str) -> list[str]:
    """Every header of that name, from the top."""
    return re.findall(rf"^{name}\s*:\s*(.*?)\r?$", message, re.MULTILINE | re.IGNORECASE)


def status(message: str) -> int:
    """The code of an answer; 0 for a request."""
    found = re.match(r"SIP/2\.0 (\d{3}) ", message)
    return int(found[1]) if found else 0


def wait_request(phone: Stranger, method: str, timeout: float = 2.0) -> str:
    """Block for the next request of this method; what comes before it is dropped.

    Raises:
        TimeoutError: none came.
    """
    while not (message := phone.receive(timeout)).startswith(f"{method} "):
        pass
    return message


def wait_answer(phone: Stranger, least: int = 200, timeout: float = 2.0) -> Reply:
    """Block for the next answer with at least this code; what comes before it is dropped.

    Raises:
        TimeoutError: none came.
    """
    while status(message := phone.receive(timeout)) < least:
        pass
    return Reply(status(message), message)


def is_quiet(phone: Stranger, seconds: float = 0.2) -> bool:
    """Whether nothing comes for so long."""
    with suppress(TimeoutError):
        phone.receive(seconds)
        return False
    return True


@dataclass
class Call:
    """An INVITE with the password in it, and what comes after it.

    Attributes:
        phone: who calls.
        account: who he is.
        to: whom he calls.
        lines: further headers of the INVITE.
        via: the address that the phone writes into Via; its true one when empty.
    """

    phone: Stranger
    account: Account
    to: str
    lines: dict[str, str] = field(default_factory=dict)
    via: str = ""
    invite: dict[str, str] = field(default_factory=dict, init=False)
    routes: list[str] = field(default_factory=list, init=False)

    def begin(self) -> None:
        """Send the INVITE, answer the challenge; does not wait for more."""
        who = {"From": f"<{self.account.uri}>;tag=caller", **self.lines}
        challenge = self.phone.ask("INVITE", self.to, who | self._via(secrets.token_hex(8)))
        assert challenge.code == 407, challenge.text
        self._acknowledge(challenge)
        self.invite = {
            **who,
            **proof(challenge, self.account, "INVITE", self.to),
            **self._via(challenge.header("Call-ID")),
            "Call-ID": challenge.header("Call-ID"),
            "CSeq": "2 INVITE",
            "Content-Type": "application/sdp",
        }
        self.phone.send("INVITE", self.to, self.invite, SDP)

    def result(self, timeout: float = 2.0) -> Reply:
        """Block for the final answer; a refusal is acknowledged."""
        answer = wait_answer(self.phone, 200, timeout)
        while "INVITE" not in answer.header("CSeq"):
            answer = wait_answer(self.phone, 200, timeout)
        if answer.code >= 300:
            self._acknowledge(answer)
        return answer

    def cancel(self) -> None:
        """Give up; blocks for the answer to the CANCEL itself."""
        same = {name: self.invite[name] for name in ("Via", "From", "Call-ID")}
        self.phone.send("CANCEL", self.to, same | {"CSeq": "2 CANCEL"})
        while "CANCEL" not in (answer := wait_answer(self.phone)).header("CSeq"):
            pass
        assert answer.code == 200

    def say(self, method: str, answer: Reply, number: int = 3, body: str = "") -> None:
        """Send a request within the dialog that `answer` has made."""
        target = re.search("<(.*?)>", answer.header("Contact"))
        assert target is not None
        # Only what made the dialog says which way it goes.
        self.routes = self.routes or headers(answer.text, "Record-Route")[::-1]
        self.phone.send(
            method,
            target[1],
            {
                **self._via(f"{method}{number}{answer.header('Call-ID')}"),
                "Route": ", ".join(self.routes),
                "From": answer.header("From"),
                "To": answer.header("To"),
                "Call-ID": answer.header("Call-ID"),
                "CSeq": f"{number} {method}",
            },
            body,
        )

    def _via(self, token: str) -> dict[str, str]:
        return {"Via": f"SIP/2.0/UDP {self.via or self.phone.address};branch=z9hG4bK{token};rport"}

    def _acknowledge(self, refusal: Reply) -> None:
        same = {name: refusal.header(name) for name in ("Via", "From", "To", "Call-ID")}
        number = refusal.header("CSeq").split()[0]
        self.phone.send("ACK", self.to, same | {"CSeq": f"{number} ACK"})


def register(
    site: Site,
    user: str,
    phone: Stranger,
    q: float | None = None,
    contact: str = "",
    via: str = "",
) -> Reply:
    """Register a phone as one of a user's; returns the answer.

    Args:
        site: where.
        user: whose phone it is.
        phone: which then gets his calls.
        q: how much he prefers it to his others.
        contact: the URI that it names; its true address when empty.
        via: the address that it writes into Via; its true one when empty.
    """
    account, domain = site.account(user), f"sip:{site.realm}"
    who = {
        "From": f"<{account.uri}>;tag=phone",
        "To": f"<{account.uri}>",
        "Contact": f"<{contact or f'sip:phone@{phone.address}'}>" + ("" if q is None else f";q={q}"),
        "Expires": "600",
    }

    def line() -> dict[str, str]:
        branch = f"z9hG4bK{secrets.token_hex(8)}"
        return {"Via": f"SIP/2.0/UDP {via or phone.address};branch={branch};rport"}

    challenge = phone.ask("REGISTER", domain, who | line())
    answer = phone.ask("REGISTER", domain, who | line() | proof(challenge, account, "REGISTER", domain))
    assert answer.code == 200, answer.text
    return answer


def say_back(phone: Stranger, invite: str, method: str, number: int = 1) -> None:
    """Send a request within the dialog of an INVITE that this phone has answered with `Stranger.reply`."""
    target = re.search("<(.*?)>", header(invite, "Contact"))
    assert target is not None
    phone.send(
        method,
        target[1],
        {
            "Route": ", ".join(headers(invite, "Record-Route")),
            "From": f"{header(invite, 'To')};tag={phone.tag}",
            "To": header(invite, "From"),
            "Call-ID": header(invite, "Call-ID"),
            "CSeq": f"{number} {method}",
        },
    )


def try_register(phone: Stranger, account: Account, **lines: str) -> Reply:
    """A REGISTER with the account's password; returns the answer, whatever it is.

    Args:
        phone: who sends it.
        account: who he says he is.
        lines: further headers, `user_agent="…"` for User-Agent.
    """
    domain = f"sip:{account.realm}"
    own = {"From": f"<{account.uri}>;tag=phone", "To": f"<{account.uri}>"}
    who = own | {name.title().replace("_", "-"): value for name, value in lines.items()}
    challenge = phone.ask("REGISTER", domain, who)
    if challenge.code != 401:
        return challenge
    return phone.ask("REGISTER", domain, who | proof(challenge, account, "REGISTER", domain))


def serves(site: Site, somebody: Stranger) -> bool:
    """Whether the server answers an OPTIONS of his within 0.1 s."""
    with suppress(TimeoutError):
        return somebody.ask("OPTIONS", f"sip:{site.realm}", timeout=0.1).code == 200
    return False
