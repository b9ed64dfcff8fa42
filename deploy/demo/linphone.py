"""A softphone: linphonec with its own folder, told what to do on its standard input.

Rule: what it says on its standard output becomes an event under the name that baresip gives it, so a test
does not care which of the two phones rings. MESSAGE and PRESENCE exist here only.

Known limits of linphonec 5.1: it makes no sound but silence here, it shows only the first line of a
message that has several, and it watches presence but no lamps (no Event: dialog).
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from deploy.demo.account import Account
from deploy.demo.program import Program, ProgramError, free_ports
from deploy.demo.telephone import PhoneEvent, Telephone

# From the first: SIP, one spare, then RTP and RTCP of sound, video and text.
_PORTS = 8
_RTP = 2

_CONFIG = """\
[sip]
sip_port={sip}
sip_tcp_port={sip}
sip_tls_port={tls}
bind_address={address}
guess_hostname=0
store_ha1_passwd=0
default_proxy=0
media_encryption={encryption}
media_encryption_mandatory={mandatory}
{trust}
[proxy_0]
reg_proxy=<sip:{account.proxy};transport={account.transport}>
reg_route=<sip:{account.proxy};transport={account.transport};lr>
reg_identity={account.uri}
reg_expires=60
reg_sendregister=1
publish={publishes}

[auth_info_0]
username={account.user}
passwd={account.password}
realm={account.realm}
domain={account.realm}

[rtp]
bind_address={address}
audio_rtp_port={rtp}
video_rtp_port={video}
text_rtp_port={text}
"""

_TRUST = """\
root_ca={}
verify_server_certs=1
verify_server_cn=1
"""

# What linphonec says, and which event that is. Group names are fields of the event.
_SAYS = [
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"^Account .*to \[LinphoneRegistrationOk\]", "REGISTER_OK"),
        (r"^Account .*to \[LinphoneRegistrationFailed\]", "REGISTER_FAIL"),
        (r"^Receiving new incoming call from (?P<peer>.*), assigned id (?P<call>\d+)", "CALL_INCOMING"),
        (r"^Call (?P<call>\d+) to (?P<peer>.*) ringing\.", "CALL_RINGING"),
        (r"^Call (?P<call>\d+) with (?P<peer>.*) early media\.", "CALL_PROGRESS"),
        (r"^Call (?P<call>\d+) with (?P<peer>.*) connected\.", "CALL_ESTABLISHED"),
        (r"^Call (?P<call>\d+) with (?P<peer>.*) ended \((?P<text>.*)\)\.", "CALL_CLOSED"),
        (r"^Call (?P<call>\d+) with (?P<peer>.*) error\.", "CALL_CLOSED"),
        (r"^Receiving tone (?P<text>.) from (?P<peer>.*)", "CALL_DTMF_START"),
        (r"^Message received from (?P<peer>.*?): (?P<text>.*)", "MESSAGE"),
        (r"^Chat message .* moving from InProgress to (?P<text>\w+)", "MESSAGE_SENT"),
        (r"^Friend (?P<peer>.*) is (?P<text>.*)", "PRESENCE"),
    )
]
# In front of a line: the prompt, and the time and part of the library that writes to the log.
_FRONT = re.compile(r"^(linphonec> )?([-\d]+ [:\d]+ liblinphone-message-)?")
_REFUSAL = re.compile(r"^Op .* receiving call response \[(\d+)\]")


class Linphone(Telephone):
    """One linphonec with one account, MD5 or SHA-256.

    Args:
        folder: for its configuration, log and history; one per phone, created when missing.
        account: who it is and where it registers.
        answer: "auto" answers at once, "manual" rings until `answer()`.
        publishes: whether it tells the server of its presence (PUBLISH).
        address: IPv4 address that it uses.
        trusts: PEM file of the authority that a server's certificate must come from; for an account over TLS.
            The server must be named by its domain then, since linphonec knows no certificate of an address.
        encrypts: how it encrypts sound, and takes no call without: "srtp" with keys in SIP (SDES), "dtls"; ""
            never.
    """

    def __init__(
        self,
        folder: Path,
        account: Account,
        *,
        answer: Literal["auto", "manual"] = "manual",
        publishes: bool = False,
        address: str = "127.0.0.1",
        trusts: Path | None = None,
        encrypts: Literal["", "srtp", "dtls"] = "",
    ) -> None:
        super().__init__(folder, account)
        self._answer = answer
        self._publishes = publishes
        self._address = address
        self._trusts = trusts
        self._encrypts = encrypts
        self._first_port = free_ports(_PORTS, address)
        self._refusal = ""

    @property
    def contact(self) -> str:
        """The URI that reaches the phone directly, past every server."""
        return f"sip:{self.account.user}@{self._address}:{self._first_port}"

    def start(self) -> None:
        """Start the phone; blocks until it has obeyed its first command, at most 10 s.

        Raises:
            ProgramError: linphonec does not start.
        """
        # For its databases: it does not make the folder itself, and cannot send a message without.
        (self.folder / ".local" / "share" / "linphone").mkdir(parents=True, exist_ok=True)
        rtp = self._first_port + _RTP
        config = _CONFIG.format(
            account=self.account,
            address=self._address,
            sip=self._first_port,
            publishes=int(self._publishes),
            tls=-2 if self._trusts else 0,  # -2: it connects, and takes no connections
            encryption=self._encrypts or "none",
            mandatory=int(bool(self._encrypts)),
            trust=_TRUST.format(self._trusts) if self._trusts else "",
            rtp=rtp,
            video=rtp + 2,
            text=rtp + 4,
        )
        (self.folder / "linphonerc").touch(mode=0o600)
        (self.folder / "linphonerc").write_text(config)
        self._ended = False
        command: list[str | Path] = ["linphonec", "-c", self.folder / "linphonerc", "-d", "5"]
        if self._answer == "auto":
            command.append("-a")
        home = {"HOME": str(self.folder)}
        self._program = Program(command, self.log, home, self.folder, listener=self._hear, takes_input=True)
        try:
            self.command("soundcard use files")
            self._program.wait_for("Using wav files", 10.0)
        except ProgramError:
            self.stop()
            raise

    def stop(self) -> None:
        """Unregister, hang up and end the phone. Harmless when it does not run."""
        if self._program is not None:
            with suppress(ProgramError):
                self._program.say("quit")
                self._program.wait(5.0)
            self._program.stop()
            self._program = None

    def answer(self) -> None:
        """Lift the receiver."""
        self.command("answer")

    def reject(self) -> None:
        """Refuse the ringing call with 603 Decline."""
        self.command("terminate")

    def hang_up(self) -> None:
        """End the call, or give up dialling."""
        self.command("terminate")

    def dial(self, uri: str) -> None:
        """Call somebody; does not wait for an answer."""
        self.command(f"call {uri}")

    def hold(self) -> None:
        """Put the call on hold."""
        self.command("pause")

    def resume(self, call: str) -> None:
        """Take a call, by its number here, back from hold."""
        self.command(f"resume {call}")

    def transfer(self, call: str, to_call: str) -> None:
        """Send the far end of one call to that of another, after a word with it (REFER with Replaces)."""
        self.command(f"transfer {call} --to-call {to_call}")

    def write(self, uri: str, text: str) -> None:
        """Send somebody one line of text; the MESSAGE_SENT event says Delivered or NotDelivered."""
        self.command(f"chat {uri} {text}")

    def watch(self, uri: str) -> None:
        """Subscribe to somebody's presence; PRESENCE events say what becomes of it."""
        self.command(f"friend add {uri.partition(':')[2].partition('@')[0]} {uri}")

    def command(self, line: str) -> None:
        """One command of linphonec; does not wait for what comes of it.

        Raises:
            ProgramError: the phone has ended.
        """
        self.program.say(line)

    def _hear(self, line: str | None) -> None:
        with self._news:
            if line is None:
                self._ended = True
            elif (event := self._event(_FRONT.sub("", line))) is not None:
                self._events.append(event)
            self._news.notify_all()

    def _event(self, line: str) -> PhoneEvent | None:
        if refused := _REFUSAL.match(line):
            self._refusal = refused[1]
        for pattern, kind in _SAYS:
            if said := pattern.match(line):
                field = said.groupdict()
                # Of a call that failed it says no more than that; the answer was in its log.
                text = field.get("text", self._refusal if kind == "CALL_CLOSED" else "")
                return PhoneEvent(kind, text, field.get("peer", ""), field.get("call", ""), time.monotonic())
        return None
