"""A conference room as a process of its own: whoever calls it hears everybody else in it (RFC 4579).

    python -m deploy.demo.focus URI PROXY USER        the password is the first line of its standard input

Rule: it registers, answers everybody, and joins each to each; it says `registered`, and how many are `in` it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pjsua2 as pj

from deploy.demo.account import Account
from deploy.demo.program import Program

_OK = 200


class Focus:
    """The process, from where a test stands.

    Args:
        folder: for its log, created when missing.
        account: which room it is and where it registers.
    """

    def __init__(self, folder: Path, account: Account) -> None:
        self.folder = folder.resolve()
        self.account = account

    def __enter__(self) -> Program:
        self.folder.mkdir(parents=True, exist_ok=True)
        me = self.account
        command = [sys.executable, "-m", "deploy.demo.focus", me.uri, me.proxy, me.user]
        root = Path(__file__).parent.parent.parent
        self._program = Program(command, self.folder / "focus.log", folder=root, takes_input=True)
        self._program.say(me.password)
        self._program.wait_for("^registered", 10.0)
        return self._program

    def __exit__(self, *_: object) -> None:
        self._program.stop()


class _Room(pj.Account):
    """Takes calls, and keeps each until it is over: destroyed earlier it would be hung up."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Guest] = []

    def onRegState(self, prm: pj.OnRegStateParam) -> None:
        if prm.code == _OK:
            _say("registered")

    def onIncomingCall(self, prm: pj.OnIncomingCallParam) -> None:
        guest = _Guest(self, prm.callId)
        self.calls.append(guest)
        answer = pj.CallOpParam(True)
        answer.statusCode = _OK
        answer.opt.textCount = answer.opt.videoCount = 0
        guest.answer(answer)


class _Guest(pj.Call):
    def __init__(self, room: _Room, call_id: int) -> None:
        super().__init__(room, call_id)
        self._room = room
        self.media: pj.AudioMedia | None = None
        self.over = False

    def onCallMediaState(self, prm: pj.OnCallMediaStateParam) -> None:
        self.media = self.getAudioMedia(-1)
        for other in self._room.calls:
            if other is not self and other.media is not None and not other.over:
                self.media.startTransmit(other.media)
                other.media.startTransmit(self.media)

    def onCallState(self, prm: pj.OnCallStateParam) -> None:
        state = self.getInfo().state
        self.over = state == pj.PJSIP_INV_STATE_DISCONNECTED
        if self.over or state == pj.PJSIP_INV_STATE_CONFIRMED:
            _say(f"in: {sum(not guest.over for guest in self._room.calls)}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(uri: str, proxy: str, user: str) -> None:
    """Serve until the process is ended."""
    password = sys.stdin.readline().strip()
    pj.Admission.open()
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    config = pj.EpConfig()
    config.uaConfig.threadCnt = 0
    config.uaConfig.mainThreadOnly = True
    config.medConfig.noVad = True
    config.medConfig.ecTailLen = 0
    config.logConfig.level = config.logConfig.consoleLevel = 0
    endpoint.libInit(config)
    endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, pj.TransportConfig())
    endpoint.audDevManager().setNullDev()
    endpoint.libStart()
    settings = pj.AccountConfig()
    settings.idUri = uri
    settings.regConfig.registrarUri = f"sip:{proxy}"
    settings.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", user, 0, password))
    settings.sipConfig.proxies.append(f"sip:{proxy};lr;hide")
    settings.mediaConfig.transportConfig.boundAddress = proxy.rpartition(":")[0]
    room = _Room()
    room.create(settings)
    while True:
        endpoint.libHandleEvents(100)
        room.calls = [guest for guest in room.calls if not guest.over]


if __name__ == "__main__":
    main(*sys.argv[1:])
