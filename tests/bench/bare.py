"""What any station is measured against: the least script that registers and calls with pjsua2.

    python bare.py ORDERS POLL_MS URI PROXY USER PASSWORD TO

It says `registered`, and calls TO for each datagram at the Unix socket ORDERS. It looks for one every POLL_MS
milliseconds.
"""

import socket
import sys

import pjsua2 as pj


class Account(pj.Account):
    def onRegState(self, prm: pj.OnRegStateParam) -> None:
        if prm.code == 200:
            sys.stdout.write("registered\n")
            sys.stdout.flush()


class Call(pj.Call):
    over = False

    def onCallState(self, prm: pj.OnCallStateParam) -> None:
        self.over = self.getInfo().state == pj.PJSIP_INV_STATE_DISCONNECTED


def main(orders: str, poll_ms: str, uri: str, proxy: str, user: str, password: str, to: str) -> None:
    pj.Admission.open()
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    config = pj.EpConfig()
    config.uaConfig.threadCnt = 0
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
    account = Account()
    account.create(settings)

    trigger = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    trigger.bind(orders)
    trigger.setblocking(False)
    offer = pj.CallOpParam(True)
    offer.opt.textCount = 0
    calls: list[Call] = []
    while True:
        endpoint.libHandleEvents(int(poll_ms))
        calls = [call for call in calls if not call.over]
        try:
            trigger.recv(16)
        except BlockingIOError:
            continue
        calls.append(Call(account))
        calls[-1].makeCall(to, offer)


main(*sys.argv[1:])
