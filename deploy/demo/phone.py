"""A resident's telephone: baresip with its own folder, driven over its control port.

Rule: baresip is told and asked over that port alone, and its own event names are the names of ours.

Known limits of baresip 1.0.0: it refuses a call with 486 only (other codes: `sipp.ANSWERS`), it sends
digits as RTP events only but understands INFO too, it knows no SHA-256 digest, over TLS it takes whatever
certificate it is shown, and a call ends when the file that it plays ends.
"""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from deploy.demo.account import Account
from deploy.demo.program import Program, ProgramError, free_ports
from deploy.demo.telephone import PhoneEvent, Telephone

# From the first: SIP, SIP over TLS (always the next port), control, one spare, then RTP and RTCP pairs.
_PORTS = 24
_CONTROL = 2
_RTP = 4

_CONFIG = """\
module_path /usr/lib/baresip/modules
module g711.so
module g722.so
module opus.so
module aufile.so
module aubridge.so
module srtp.so
module dtls_srtp.so
{sndfile}module_tmp uuid.so
module_app menu.so
module_app ctrl_tcp.so
net_interface {address}
sip_listen {address}:{sip}
ctrl_tcp_listen {address}:{control}
rtp_ports {rtp}-{last}
rtp_timeout 0
audio_source aufile,{plays}
audio_player aubridge,nowhere
audio_alert aubridge,nowhere
audio_path /nonexistent
ausrc_srate 16000
ausrc_channels 1
auplay_srate 16000
auplay_channels 1
snd_path {folder}
call_local_timeout 120
call_max_calls 4
"""


class Phone(Telephone):
    """One phone with one account.

    Args:
        folder: for its configuration, log and recordings; one per phone, created when missing.
        account: who it is and where it registers.
        answer: "auto" answers at once, "manual" rings until `answer()`.
        speaks: WAV file that the far end hears once in each call, from the answer on; None is silence.
        records: whether `recording()` gives what the phone heard.
        codecs: in the order of preference.
        registers: False for a phone without a server: it calls, and is called at its `contact`, directly.
        address: IPv4 address that it uses.
        longest_call_s: after this many seconds of talking it hangs up.
        encrypts: how it encrypts sound, as baresip calls it: "srtp" if the far end does, "srtp-mand" always,
            "dtls_srtp" always, with keys that are not in SIP; "" never.
    """

    def __init__(
        self,
        folder: Path,
        account: Account,
        *,
        answer: Literal["auto", "manual"] = "manual",
        speaks: Path | None = None,
        records: bool = False,
        codecs: Sequence[str] = ("PCMA/8000/1", "PCMU/8000/1"),
        registers: bool = True,
        address: str = "127.0.0.1",
        longest_call_s: float = 120.0,
        encrypts: Literal["", "srtp", "srtp-mand", "dtls_srtp"] = "",
    ) -> None:
        super().__init__(folder, account)
        self._answer = answer
        self._speaks = speaks
        self._records = records
        self._codecs = codecs
        self._registers = registers
        self._address = address
        self._longest_call_s = longest_call_s
        self._encrypts = encrypts
        self._first_port = free_ports(_PORTS, address)
        self._channel: socket.socket | None = None
        self._reader: threading.Thread | None = None
        self._replies: dict[str, dict[str, Any]] = {}
        self._tokens = itertools.count(1)

    @property
    def contact(self) -> str:
        """The URI that reaches the phone directly, past every server."""
        return f"sip:{self.account.user}@{self._address}:{self._first_port}"

    def start(self) -> None:
        """Start the phone; blocks until its control port answers, at most 5 s.

        Raises:
            ProgramError: baresip does not start.
            subprocess.CalledProcessError: sox cannot read the file to play.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        self._ended = False
        self._program = Program(["baresip", "-4", "-v", "-s", "-f", self.folder], self.log)
        try:
            self._program.wait_for("baresip is ready", 5.0)
            self._channel = socket.create_connection((self._address, self._first_port + _CONTROL), 5.0)
        except (ProgramError, OSError):
            self.stop()
            raise
        self._channel.settimeout(None)
        self._reader = threading.Thread(
            target=self._read, args=(self._channel,), name=f"{self.account.user} events", daemon=True
        )
        self._reader.start()
        # Not from a file at the start: its first registration would be over before anybody listens.
        self.command("uanew", self._account_line())

    def stop(self) -> None:
        """Unregister, hang up and end the phone. Harmless when it does not run."""
        if self._program is not None:
            self._program.stop()
            self._program = None
        if self._reader is not None:
            self._reader.join()
            self._reader = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def answer(self) -> None:
        """Lift the receiver."""
        self.command("accept")

    def reject(self) -> None:
        """Refuse the ringing call with 486 Busy Here."""
        self.command("hangup")

    def hang_up(self) -> None:
        """End the call, or give up dialling."""
        self.command("hangup")

    def dial(self, uri: str) -> None:
        """Call somebody; does not wait for an answer."""
        self.command("dial", uri)

    def press_digits(self, digits: str) -> None:
        """Press keys in the call, one after another, as RTP events (RFC 4733); does not wait."""
        for digit in digits:
            self.command("sndcode", digit)

    def hold(self) -> None:
        """Put the call on hold."""
        self.command("hold")

    def resume(self) -> None:
        """Take the call back from hold."""
        self.command("resume")

    def transfer(self, uri: str) -> None:
        """Send the far end to somebody else (REFER)."""
        self.command("transfer", uri)

    def command(self, name: str, parameters: str = "", timeout: float = 5.0) -> str:
        """One baresip command; blocks for its answer and returns the text of it.

        Raises:
            ProgramError: baresip refuses it, or does not answer in time.
        """
        assert self._channel is not None, "the phone is not started"
        token = str(next(self._tokens))
        request = json.dumps({"command": name, "params": parameters, "token": token}).encode()
        self._channel.sendall(b"%d:%s," % (len(request), request))
        with self._news:
            if not self._news.wait_for(lambda: token in self._replies or self._ended, timeout):
                raise ProgramError(f"{self.account.user} does not answer {name} within {timeout:g} s")
            reply = self._replies.pop(token, {"ok": False, "data": "the phone has ended"})
        if not reply["ok"]:
            raise ProgramError(f"{self.account.user} refuses {name} {parameters}: {reply['data']}")
        return str(reply["data"])

    def recording(self) -> Path:
        """What the phone heard in its last call: a WAV file that grows while the call lasts.

        The files are named by the second, so of two calls begun within one second only the later is kept.

        Raises:
            ProgramError: the phone does not record, or had no call.
        """
        files = sorted(self.folder.glob("dump-*-dec.wav"), key=lambda path: path.stat().st_mtime_ns)
        if not files:
            raise ProgramError(f"{self.account.user} has no recording in {self.folder}")
        return files[-1]

    def _write_configuration(self) -> None:
        plays = self.folder / "plays.wav"
        source = ["-n", "-r", "16000"] if self._speaks is None else [str(self._speaks)]
        # Silence to the end of the longest call, since the end of the file is the end of the call.
        length = str(self._longest_call_s)
        sox = ["sox", "-V1", "-D", *source, "-r", "16000", "-b", "16", "-c", "1", str(plays)]
        subprocess.run([*sox, "rate", "16000", "pad", "0", length, "trim", "0", length], check=True)
        config = _CONFIG.format(
            address=self._address,
            sip=self._first_port,
            control=self._first_port + _CONTROL,
            rtp=self._first_port + _RTP,
            last=self._first_port + _PORTS - 1,
            folder=self.folder,
            plays=plays,
            sndfile="module sndfile.so\n" if self._records else "",
        )
        (self.folder / "config").write_text(config)

    def _account_line(self) -> str:
        account = self.account
        line = (
            f"<sip:{account.user}@{account.realm};transport={account.transport}>"
            f";auth_user={account.user};auth_pass={account.password}"
            f";answermode={self._answer};audio_codecs={','.join(self._codecs)}"
        )
        if self._encrypts:
            line += f";mediaenc={self._encrypts}"
        if self._registers:
            return f'{line};regint=60;outbound="sip:{account.proxy};transport={account.transport}"'
        return f"{line};regint=0"

    def _read(self, channel: socket.socket) -> None:
        with suppress(OSError):
            for message in _netstrings(channel):
                with self._news:
                    if message.get("event"):
                        self._events.append(_event(message))
                    elif "token" in message:
                        self._replies[message["token"]] = message
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


def _event(message: dict[str, Any]) -> PhoneEvent:
    return PhoneEvent(
        type=message["type"],
        text=message.get("param", ""),
        peer=message.get("peeruri", ""),
        call=message.get("id", ""),
        at=time.monotonic(),
    )


def _netstrings(channel: socket.socket) -> Iterator[dict[str, Any]]:
    """JSON objects in netstrings (`12:{...},`), until the connection ends."""
    with channel.makefile("rb") as stream:
        while True:
            length = b""
            while (byte := stream.read(1)).isdigit():
                length += byte
            if not byte:
                return
            yield json.loads(stream.read(int(length)))
            stream.read(1)
