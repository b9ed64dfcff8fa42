"""`intercom run`, the real one, with its simulated contact in the hands of the benchmark.

    python -m tests.bench.held ORDERS BUTTON_PIN LAMP_PIN [OUTCOME_SECONDS]

The datagrams `down` and `up` at the Unix socket ORDERS move the contact. It says `lit` with the time in ns
when the lamp is first lit, and `edge` with the time for each press. OUTCOME_SECONDS, in place of the policy's
own, brings the station to rest sooner after a call.
"""

import dataclasses
import os
import socket
import sys
import threading
import time

import hardware.simulator
from intercom.cli.main import main
from intercom.core.policy import Policy
from intercom.settings import loading
from intercom.settings.schema import Settings

ORDERS, BUTTON_PIN, LAMP_PIN = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


class HeldPins(hardware.simulator.SimulatedPins):
    def __init__(self) -> None:
        super().__init__()
        self._dark = True
        self.watch(LAMP_PIN, self._lamp)
        threading.Thread(target=self._obey, name="orders", daemon=True).start()

    def _lamp(self, lit: bool, _: float) -> None:
        if self._dark and lit:
            self._dark = False
            _say(f"lit {time.time_ns()}")

    def _obey(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as orders:
            orders.bind(ORDERS)
            while order := orders.recv(16):
                if order == b"down":
                    edge = time.time_ns()
                    self.press(BUTTON_PIN)
                    _say(f"edge {edge}")
                else:
                    self.release(BUTTON_PIN)


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # in one piece, between the lines of the log


def _with_outcome(seconds: float) -> None:
    original = loading.policy

    def policy(settings: Settings) -> Policy:
        return dataclasses.replace(original(settings), outcome_seconds=seconds)

    loading.policy = policy


hardware.simulator.SimulatedPins = HeldPins  # type: ignore[misc]
if len(sys.argv) > 4:
    _with_outcome(float(sys.argv[4]))
main(["run"])
