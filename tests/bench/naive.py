"""What any station is attacked beside: the least script that takes calls, and believes what it reads.

    python naive.py ORDERS PORT URI PROXY USER PASSWORD TO

It calls TO or hangs up for each datagram `call` or `hangup` at the Unix socket ORDERS. It answers whoever
says that he is TO, or asks for it in a header; for others it rings, for one at a time. It says what it sees,
a line each.
"""

import socket
import sys

import pjsua2 as pj


def say(what: str) -> None:
    sys.stdout.write(what + "\n")
    sys.stdout.flush()


class Call(pj.Call):
    def onCallState(self, prm: pj.OnCallStateParam) -> None:
        state = self.getInfo().state
        if state == pj.PJSIP_INV_STATE_CONFIRMED:
            say("established")
        elif state == pj.PJSIP_INV_STATE_DISCONNECTED:
            say("ended")
            calls.remove(self)

    def onCallMediaState(self, prm: pj.OnCallMediaStateParam) -> None:
        info = self.getInfo()
        for media in info.media:
            if media.status == pj.PJSUA_CALL_MEDIA_ACTIVE:
                sound = self.getAudioMedia(media.index)
                sound.startTransmit(endpoint.audDevManager().getPlaybackDevMedia())
                endpoint.audDevManager().getCaptureDevMedia().startTransmit(sound)

    def onDtmfDigit(self, prm: pj.OnDtmfDigitParam) -> None:
        say(f"digit {prm.digit}")

    def onCallReplaced(self, prm: pj.OnCallReplacedParam) -> None:
        say("replaced")
        calls.append(Call(account, prm.newCallId))


class Account(pj.Account):
    def onRegState(self, prm: pj.OnRegStateParam) -> None:
        if prm.code == 200:
            say("registered")

    def onIncomingCall(self, prm: pj.OnIncomingCallParam) -> None:
        say("incoming")
        calls.append(Call(account, prm.callId))
        told = prm.rdata.wholeMsg
        if friend in told or "answer-after=0" in told:
            calls[-1].answer(offer(200))
        else:
            calls[-1].answer(offer(180 if len(calls) == 1 else 486))


def offer(status: int) -> pj.CallOpParam:
    prm = pj.CallOpParam(True)
    prm.statusCode = status
    return prm


orders, port, uri, proxy, user, password, friend = sys.argv[1:]
calls: list[Call] = []
endpoint = pj.Endpoint()
endpoint.libCreate()
config = pj.EpConfig()
config.uaConfig.threadCnt = 0
config.logConfig.level = config.logConfig.consoleLevel = 0
endpoint.libInit(config)
transport = pj.TransportConfig()
transport.port = int(port)
endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
endpoint.audDevManager().setNullDev()
endpoint.libStart()

settings = pj.AccountConfig()
settings.idUri = uri
settings.regConfig.registrarUri = f"sip:{proxy}"
settings.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", user, 0, password))
settings.sipConfig.proxies.append(f"sip:{proxy};lr;hide")
account = Account()
account.create(settings)

trigger = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
trigger.bind(orders)
trigger.setblocking(False)
while True:
    endpoint.libHandleEvents(10)
    try:
        order = trigger.recv(16)
    except BlockingIOError:
        continue
    if order == b"call":
        calls.append(Call(account))
        calls[-1].makeCall(friend, pj.CallOpParam(True))
    else:
        endpoint.hangupAllCalls()
