"""What comes from a STUN or TURN server is read or refused, and never breaks anything."""

import asyncio
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom.sip.names import NameServers
from intercom.sip.relays import Absent, Relay, look

NAMES = NameServers()
ANSWER = b"\x01\x11"  # an error, to any of the requests


def asked(kind: str, answer: bytes) -> str:
    """What becomes of a server that answers with the request's own number, and this after it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def reply() -> None:
            request, sender = server.recvfrom(2048)
            server.sendto(ANSWER + len(answer).to_bytes(2) + request[4:20] + answer, sender)

        thread = threading.Thread(target=reply)
        thread.start()
        try:
            return asyncio.run(look(Relay(kind, "127.0.0.1", server.getsockname()[1]), NAMES))
        finally:
            thread.join()


def test_a_stun_server_that_answers() -> None:
    assert asked("STUN", b"").startswith("127.0.0.1:")


@given(st.binary(max_size=64))
def test_no_answer_breaks_it(answer: bytes) -> None:
    with pytest.raises(Absent, match="not as a TURN server does"):
        asked("TURN", answer)


def test_nobody_there() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        place = free.getsockname()
    with pytest.raises(Absent, match="nobody listens"):
        asyncio.run(look(Relay("STUN", *place), NAMES))


def test_a_secret_is_not_shown() -> None:
    assert "hidden" not in repr(Relay("TURN", "turn.example", 3478, "udp", "door", "hidden"))
