"""An account is registered whatever the registrar does, on a clock that jumps to the next attempt."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom.sip.explain import explain_refusal
from intercom.sip.registration import RegistrationChanged, Supervisor, resolve, retry_delay
from tests.fakes import FakeRegistrar, live, timeless, turns

MIDDLE = 0.5  # the chance that neither shortens nor prolongs a delay


@asynccontextmanager
async def supervised(
    registrar: FakeRegistrar, chance: Callable[[], float] = lambda: MIDDLE
) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(
        registrar.status,
        "pbx.example",
        5060,
        registrar.register,
        registrar.health.append,
        resolve=registrar.resolve,
        chance=chance,
    )
    registrar.answer = supervisor.answered
    running = asyncio.create_task(supervisor.run())
    yield supervisor
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@timeless
async def test_it_registers_and_says_so() -> None:
    registrar = FakeRegistrar()
    registrar.script = [registrar.accepts(120)]
    async with supervised(registrar) as supervisor:
        assert supervisor.status.state == "registering"
        await turns()
        status = supervisor.status
    assert (status.state, status.reason, status.expires_s) == ("registered", "", 120)
    assert status.name == registrar.status.name
    assert registrar.lookups == [("pbx.example", 5060)]
    assert [address for _, address in registrar.attempts] == ["192.0.2.10"]
    assert registrar.health == [None]


@timeless
async def test_a_refresh_keeps_it_registered_without_another_attempt() -> None:
    registrar = FakeRegistrar()
    registrar.script = [registrar.accepts(300)]
    async with supervised(registrar) as supervisor:
        await turns()
        supervisor.answered(registrar.accepts(60))
        await turns()
        assert supervisor.status.expires_s == 60
    assert len(registrar.attempts) == 1


@timeless
async def test_it_never_gives_up() -> None:
    registrar = FakeRegistrar()
    registrar.script = [registrar.refuses(403, "Forbidden") for _ in range(12)]
    async with supervised(registrar):
        await asyncio.sleep(3600)
    assert registrar.gaps() == [2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60, 60]


@timeless
async def test_after_a_success_the_next_delay_is_short_again() -> None:
    registrar = FakeRegistrar()
    refused = registrar.refuses(503, "Service Unavailable")
    registrar.script = [refused, refused, refused, registrar.accepts()]
    async with supervised(registrar) as supervisor:
        await asyncio.sleep(60)
        assert supervisor.status.state == "registered"
        registrar.attempts.clear()
        registrar.script = [refused, registrar.accepts()]
        lost = asyncio.get_running_loop().time()
        supervisor.answered(refused)  # unasked: a refresh has failed
        await asyncio.sleep(60)
        assert supervisor.status.state == "registered"
    assert [round(at - lost, 3) for at, _ in registrar.attempts] == [2, 6]
    assert registrar.health[-4:] == [*registrar.health[-4:-1], None]


@timeless
async def test_a_lost_registration_is_shown_at_once_and_until_it_is_back() -> None:
    registrar = FakeRegistrar()
    registrar.script = [registrar.accepts()]
    async with supervised(registrar) as supervisor:
        await turns()
        supervisor.answered(registrar.refuses(408, "Request Timeout"))
        await turns()
        silent = explain_refusal(408, "Request Timeout", registrar.status.uri, "pbx.example:5060")
        assert supervisor.status.state == "unregistered"
        assert supervisor.status.reason == silent
        assert supervisor.status.expires_s == 0
        await asyncio.sleep(10)
        assert supervisor.status.state == "unregistered"
    assert registrar.health == [None, silent]


@timeless
async def test_a_registration_that_grants_no_time_is_none() -> None:
    registrar = FakeRegistrar()
    registrar.script = [RegistrationChanged(200, "OK", 0), registrar.accepts()]
    async with supervised(registrar) as supervisor:
        await turns()
        assert supervisor.status.reason == "pbx.example:5060 took the registration without granting any time"
        await asyncio.sleep(2.1)
        assert supervisor.status.state == "registered"


@timeless
async def test_a_name_that_does_not_resolve_is_tried_again() -> None:
    registrar = FakeRegistrar()
    registrar.address = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    registrar.script = [registrar.accepts()]
    async with supervised(registrar) as supervisor:
        await asyncio.sleep(3)
        assert registrar.attempts == []
        assert registrar.health == [
            "the name pbx.example does not resolve: Name or service not known",
            "the name pbx.example does not resolve: Name or service not known",
        ]
        registrar.address = "192.0.2.99"
        await asyncio.sleep(4)
        assert supervisor.status.state == "registered"
    assert [address for _, address in registrar.attempts] == ["192.0.2.99"]


@live
async def test_a_name_that_cannot_be_one_does_not_end_the_attempts() -> None:
    registrar = FakeRegistrar()
    told: asyncio.Queue[str | None] = asyncio.Queue()
    supervisor = Supervisor(
        registrar.status, "pbx..example", 5060, registrar.register, told.put_nowait, resolve=resolve
    )
    running = asyncio.create_task(supervisor.run())
    fault = await told.get()
    assert fault is not None
    assert fault.startswith("the name pbx..example does not resolve: ")
    await turns()
    assert not running.done()
    running.cancel()


@live
async def test_an_address_needs_no_name_server() -> None:
    assert await resolve("127.0.0.1", 5060) == "127.0.0.1"
    with pytest.raises(OSError, match="ddress family"):
        await resolve("::1", 5060)


@timeless
async def test_the_delay_is_spread() -> None:
    registrar = FakeRegistrar()
    registrar.script = [registrar.refuses(503, "Service Unavailable") for _ in range(3)]
    chances = iter([0.0, 1.0, MIDDLE])
    async with supervised(registrar, lambda: next(chances)):
        await asyncio.sleep(15)
    assert registrar.gaps() == [1.6, 4.8, 8.0]


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_every_delay_is_within_a_fifth_of_its_place_in_the_row(failures: int, chance: float) -> None:
    row = [2, 4, 8, 16, 32, 60]
    place = row[min(failures, len(row)) - 1]
    assert 0.8 * place <= round(retry_delay(failures, chance), 9) <= 1.2 * place
    assert retry_delay(failures, 0) == pytest.approx(0.8 * place)
    assert retry_delay(failures, 1) == pytest.approx(1.2 * place)
