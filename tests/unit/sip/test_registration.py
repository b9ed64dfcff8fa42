"""An account is registered whatever the registrar does, on a clock that jumps to the next attempt."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom.sip.explain import explain_refusal
from intercom.sip.registration import ConnectionLost, NotTrusted, ServerSilent, Supervisor, retry_delay
from intercom.sip.targets import NotFound, Server
from tests.fakes import PBX, SPARE, FakeRegistrar, timeless, turns

MIDDLE = 0.5  # the chance that neither shortens nor prolongs a delay


@asynccontextmanager
async def supervised(
    registrar: FakeRegistrar, chance: Callable[[], float] = lambda: MIDDLE
) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(
        registrar.status,
        find=registrar.find,
        admit=registrar.admitted.append,
        register=registrar.register,
        answers=registrar.answers,
        quiet=lambda: registrar.quiet,
        health=registrar.health.append,
        chance=chance,
    )
    registrar.hear = supervisor.hear
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
    assert status.server == "pbx.example:5060 (192.0.2.10)"
    assert registrar.lookups == [False]
    assert registrar.admitted == [(PBX,)]
    assert registrar.asked() == [PBX]
    assert registrar.health == [None]


@timeless
async def test_a_refresh_keeps_it_registered_without_another_attempt() -> None:
    registrar = FakeRegistrar()
    registrar.script = [registrar.accepts(300)]
    async with supervised(registrar) as supervisor:
        await turns()
        registrar.say(registrar.accepts(60))
        await turns()
        assert supervisor.status.expires_s == 60
    assert len(registrar.attempts) == 1


@timeless
async def test_it_never_gives_up() -> None:
    registrar = FakeRegistrar()
    registrar.script = [registrar.refuses(403, "Forbidden") for _ in range(12)]
    async with supervised(registrar):
        await asyncio.sleep(3600)
    assert registrar.gaps()[:12] == [2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60, 60]
    assert registrar.gaps()[12:] == [90] * 34  # it says nothing any more, and is heard out


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
        registrar.say(refused)  # unasked: a refresh has failed
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
        registrar.say(registrar.refuses(408, "Request Timeout"))
        await turns()
        silent = explain_refusal(408, "Request Timeout", registrar.status.uri, "pbx.example:5060")
        assert supervisor.status.state == "unregistered"
        assert supervisor.status.expires_s == 0
        deaf = "answers OPTIONS, but not the REGISTER of 'door': so a FRITZ!Box treats a wrong user name"
        assert supervisor.status.reason == f"pbx.example:5060 {deaf}"
        await asyncio.sleep(10)
        assert supervisor.status.state == "unregistered"
    assert registrar.health[:2] == [None, silent]


@timeless
async def test_a_registration_that_grants_no_time_is_none() -> None:
    registrar = FakeRegistrar()
    registrar.script = [registrar.accepts(0), registrar.accepts()]
    async with supervised(registrar) as supervisor:
        await turns()
        assert "took the registration, but granted no time" in supervisor.status.reason
        await asyncio.sleep(2.1)
        assert supervisor.status.state == "registered"


@timeless
async def test_a_name_that_does_not_resolve_is_tried_again() -> None:
    registrar = FakeRegistrar()
    registrar.servers = NotFound("the name pbx.example does not resolve: no such name")
    registrar.script = [registrar.accepts()]
    async with supervised(registrar) as supervisor:
        await asyncio.sleep(3)
        assert registrar.attempts == []
        assert registrar.health == ["the name pbx.example does not resolve: no such name"] * 2
        assert supervisor.status.reason == registrar.health[0]
        registrar.servers = (PBX,)
        await asyncio.sleep(4)
        assert supervisor.status.state == "registered"
    assert registrar.lookups == [False, False, False]


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


# What a registrar may say


@pytest.mark.parametrize(("wish", "waits"), [(0, 2), (5, 5), (120, 120), (300, 300), (3600, 300)])
@timeless
async def test_a_server_that_asks_to_be_left_alone_is_left_alone(wish: int, waits: int) -> None:
    registrar = FakeRegistrar()
    registrar.script = [registrar.refuses(503, "Service Unavailable", wish), registrar.accepts()]
    async with supervised(registrar, lambda: 0.0) as supervisor:
        await asyncio.sleep(waits + 0.1)
        assert supervisor.status.state == "registered"
    assert registrar.gaps() == [waits if wish else 1.6]


@timeless
async def test_such_a_wish_is_spread_too_but_never_cut_short() -> None:
    registrar = FakeRegistrar()
    registrar.script = [registrar.refuses(503, "Service Unavailable", 100)] * 2
    chances = iter([1.0, 0.0, MIDDLE])
    async with supervised(registrar, lambda: next(chances)):
        await asyncio.sleep(230)
    assert registrar.gaps() == [120, 100]


@timeless
async def test_a_server_that_is_to_be_left_alone_is_not_asked_while_another_serves() -> None:
    registrar = pair()
    registrar.script = [registrar.refuses(503, "Service Unavailable", 200), registrar.accepts()]
    async with supervised(registrar) as supervisor:
        await turns()
        assert supervisor.status.server == "spare.example:5060 (192.0.2.20)"
        registrar.say(registrar.refuses(500, "Server Internal Error"), SPARE)
        await asyncio.sleep(199)
        assert supervisor.status.server == "spare.example:5060 (192.0.2.20)"
        await asyncio.sleep(31)
        assert supervisor.status.server == "pbx.example:5060 (192.0.2.10)"
    assert registrar.asked() == [PBX, SPARE, SPARE, PBX]


@pytest.mark.parametrize(
    ("granted", "renewals"), [(1, 60), (2, 60), (10, 12), (60, 2), (90, 1), (300, 0), (86400, 0)]
)
@timeless
async def test_a_registration_is_renewed_in_time_and_never_in_a_hurry(granted: int, renewals: int) -> None:
    registrar = FakeRegistrar()
    registrar.script = [registrar.accepts(granted)] * 100
    async with supervised(registrar) as supervisor:
        await asyncio.sleep(60.5)
        assert supervisor.status.state == "registered"
    assert len(registrar.attempts) == 1 + renewals


@given(
    st.lists(
        st.tuples(st.sampled_from([200, 302, 401, 403, 408, 423, 480, 500, 503, 603]), st.integers(0, 9)),
        min_size=1,
        max_size=12,
    )
)
def test_no_server_is_asked_more_than_once_a_second_whatever_it_says(said: list[tuple[int, int]]) -> None:
    @timeless
    async def tell() -> None:
        registrar = FakeRegistrar(PBX, SPARE)
        words = [(status, "said", number if status == 200 else 0, number) for status, number in said]
        registrar.scripts = {PBX: list(words), SPARE: list(reversed(words))}
        async with supervised(registrar):
            for status, number in said:
                await asyncio.sleep(0.01 + number / 3)
                registrar.say((status, "late", number), registrar.asked()[-1])
            await asyncio.sleep(600)
        for server in (PBX, SPARE):
            times = [at for at, asked in registrar.attempts if asked == server]
            assert all(later - earlier >= 0.999 for earlier, later in itertools.pairwise(times))
        assert registrar.attempts[-1][0] > 1000  # it never stops

    tell()


# Several servers


def pair() -> FakeRegistrar:
    """A better server and a spare one, which accept whatever they are asked."""
    registrar = FakeRegistrar(PBX, SPARE)
    registrar.scripts = {server: [registrar.accepts()] * 100 for server in (PBX, SPARE)}
    return registrar


@timeless
async def test_the_better_server_is_used() -> None:
    registrar = pair()
    async with supervised(registrar) as supervisor:
        await asyncio.sleep(600)
        assert supervisor.status.server == "pbx.example:5060 (192.0.2.10)"
    assert set(registrar.asked()) == {PBX}
    assert registrar.admitted == [(PBX, SPARE)]


@timeless
async def test_a_server_that_is_silent_at_the_start_costs_three_seconds() -> None:
    registrar = pair()
    del registrar.scripts[PBX]
    registrar.there[PBX] = False
    async with supervised(registrar) as supervisor:
        await asyncio.sleep(3.1)
        assert supervisor.status.server == "spare.example:5060 (192.0.2.20)"
        assert supervisor.status.state == "registered"
    assert (registrar.asked(), registrar.gaps()) == ([PBX, SPARE], [3])
    assert registrar.health == [None]


@pytest.mark.parametrize("status", [408, 503])
@timeless
async def test_a_transport_that_fails_costs_nothing(status: int) -> None:
    registrar = pair()
    registrar.script = [registrar.refuses(status, "failed")]
    async with supervised(registrar) as supervisor:
        await turns()
        assert supervisor.status.server == "spare.example:5060 (192.0.2.20)"
    assert registrar.asked() == [PBX, SPARE]


@pytest.mark.parametrize("status", [401, 403, 404, 500])
@timeless
async def test_a_refusal_is_an_answer_and_is_not_taken_elsewhere(status: int) -> None:
    registrar = pair()
    registrar.script = [registrar.refuses(status, "No"), registrar.accepts()]
    async with supervised(registrar):
        await asyncio.sleep(2.1)
    assert (registrar.asked(), registrar.gaps()) == ([PBX, PBX], [2])


@timeless
async def test_a_slow_server_is_given_more_time_in_each_round() -> None:
    registrar = FakeRegistrar(PBX, SPARE)
    registrar.scripts[SPARE] = [registrar.refuses(408, "Request Timeout")] * 10
    async with supervised(registrar):
        await asyncio.sleep(60)
    assert registrar.asked()[:6] == [PBX, SPARE] * 3
    assert registrar.gaps()[:5] == [3, 2, 6, 4, 12]


@timeless
async def test_a_server_that_dies_is_noticed_and_left_at_once() -> None:
    registrar = pair()
    async with supervised(registrar) as supervisor:
        await asyncio.sleep(60)
        registrar.there[PBX] = False
        await asyncio.sleep(5.1)
        assert supervisor.status.server == "spare.example:5060 (192.0.2.20)"
        assert supervisor.status.state == "registered"
    assert registrar.asked() == [PBX, SPARE]
    assert set(registrar.health) == {None}


@timeless
async def test_a_server_that_never_answers_options_is_not_judged() -> None:
    registrar = pair()
    registrar.there[PBX] = False
    async with supervised(registrar):
        await asyncio.sleep(600)
    assert set(registrar.asked()) == {PBX}
    assert registrar.health == [None] * 3


@timeless
async def test_without_a_network_no_server_is_to_blame() -> None:
    registrar = pair()
    async with supervised(registrar):
        await asyncio.sleep(60)
        registrar.there[PBX] = None
        await asyncio.sleep(60)
    assert registrar.asked() == [PBX]


@timeless
async def test_an_only_server_that_dies_is_noticed_and_registered_with_as_soon_as_it_is_back() -> None:
    registrar = FakeRegistrar()
    registrar.script = [registrar.accepts()] * 2
    async with supervised(registrar) as supervisor:
        await asyncio.sleep(60)
        registrar.there[PBX] = False
        registrar.script = [registrar.refuses(408, "Request Timeout")] * 100
        await asyncio.sleep(10.1)
        assert supervisor.status.state == "unregistered"
        await asyncio.sleep(3600)
        registrar.there[PBX] = True
        registrar.script = [registrar.accepts()]
        await asyncio.sleep(4.1)
        assert supervisor.status.state == "registered"
    assert registrar.health[-1] is None


@timeless
async def test_the_better_server_is_gone_back_to_when_there_is_no_call() -> None:
    registrar = pair()
    async with supervised(registrar) as supervisor:
        await asyncio.sleep(60)
        registrar.there[PBX] = False
        await asyncio.sleep(60)
        assert registrar.asked() == [PBX, SPARE]
        registrar.there[PBX], registrar.quiet = True, False
        await asyncio.sleep(60)
        assert registrar.asked() == [PBX, SPARE]
        registrar.quiet = True
        await asyncio.sleep(31)
        assert supervisor.status.server == "pbx.example:5060 (192.0.2.10)"
    assert registrar.asked() == [PBX, SPARE, PBX]
    assert set(registrar.health) == {None}


@timeless
async def test_a_better_server_that_is_back_and_refuses_is_left_again_and_tried_less_often() -> None:
    registrar = pair()
    async with supervised(registrar) as supervisor:
        await asyncio.sleep(60)
        registrar.there[PBX] = False
        await asyncio.sleep(6)
        registrar.there[PBX] = True
        registrar.script = [registrar.refuses(403, "Forbidden")] * 100
        await asyncio.sleep(3600)
        assert supervisor.status.server == "spare.example:5060 (192.0.2.20)"
    returns = [at for at, server in registrar.attempts[2:] if server == PBX]
    waits = [round(later - earlier) for earlier, later in itertools.pairwise(returns)]
    assert waits[:6] == [60, 120, 240, 480, 600, 600]
    assert set(registrar.health) == {None}


@timeless
async def test_a_call_that_gets_no_word_out_of_the_server_moves_the_station() -> None:
    registrar = pair()
    async with supervised(registrar):
        await asyncio.sleep(60)
        registrar.hear(ServerSilent(PBX))
        await turns()
        registrar.hear(ServerSilent(PBX))  # late: it is not in use any more
        await turns()
    assert registrar.asked() == [PBX, SPARE]


@timeless
async def test_a_call_that_gets_no_word_ends_the_wait_for_the_next_try() -> None:
    registrar = FakeRegistrar(PBX, SPARE)
    registrar.scripts = {server: [registrar.refuses(503, "failed")] * 20 for server in (PBX, SPARE)}
    async with supervised(registrar) as supervisor:
        await asyncio.sleep(200)
        registrar.attempts.clear()
        registrar.scripts = {PBX: [registrar.accepts()]}
        registrar.hear(ServerSilent(SPARE))
        await turns()
        assert supervisor.status.state == "registered"
    assert registrar.asked() == [PBX]


@timeless
async def test_a_lost_connection_is_made_anew_to_the_same_server_first() -> None:
    registrar = pair()
    async with supervised(registrar):
        await asyncio.sleep(60)
        registrar.hear(ConnectionLost(PBX))
        await turns()
    assert registrar.asked() == [PBX, PBX]


@timeless
async def test_servers_that_drop_every_connection_are_not_asked_without_end() -> None:
    registrar = pair()
    async with supervised(registrar):
        for _ in range(10):
            await asyncio.sleep(1)
            registrar.hear(ConnectionLost(registrar.asked()[-1]))
            await turns()
    assert len(registrar.attempts) <= 5


@timeless
async def test_a_name_server_that_fails_leaves_the_last_good_servers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registrar = pair()
    async with supervised(registrar) as supervisor:
        await turns()
        registrar.servers = NotFound("the servers of site.example cannot be asked for: silence")
        await asyncio.sleep(3600)
        registrar.there[PBX] = False
        await asyncio.sleep(6)
        assert supervisor.status.server == "spare.example:5060 (192.0.2.20)"
    assert caplog.text.count("cannot be asked for") == 1
    assert registrar.admitted == [(PBX, SPARE)]


@timeless
async def test_a_server_that_is_taken_out_of_the_list_is_left() -> None:
    registrar = pair()
    moved = Server("192.0.2.30", 5060, "udp", "pbx.example", 10)
    registrar.scripts[moved] = [registrar.accepts()]
    async with supervised(registrar) as supervisor:
        await turns()
        registrar.servers = (moved,)
        await asyncio.sleep(31)
        assert supervisor.status.server == "pbx.example:5060 (192.0.2.30)"
    assert registrar.admitted == [(PBX, SPARE), (moved,)]


@timeless
async def test_what_a_server_says_late_is_not_taken_for_the_next() -> None:
    registrar = FakeRegistrar(PBX, SPARE)
    async with supervised(registrar) as supervisor:
        await asyncio.sleep(3.1)
        registrar.say(registrar.accepts())
        await turns()
        assert supervisor.status.state != "registered"
        registrar.say(registrar.accepts(), SPARE)
        await turns()
        assert supervisor.status.state == "registered"


# Servers that are not believed


@timeless
async def test_a_server_that_is_not_believed_is_explained_and_asked_again() -> None:
    registrar = FakeRegistrar()
    async with supervised(registrar) as supervisor:
        await turns()
        for attempt in range(1, 4):
            assert len(registrar.attempts) == attempt
            registrar.hear(NotTrusted(PBX, "shows a certificate that has expired on 2026-04-30"))
            registrar.say(
                registrar.refuses(503, "Certificate verification error")
            )  # pjsip's word comes after
            await turns()
            assert supervisor.status.state == "unregistered"
            assert supervisor.status.reason == (
                "pbx.example:5060 shows a certificate that has expired on 2026-04-30"
            )
            await asyncio.sleep(2.0**attempt + 0.1)
    assert registrar.gaps() == pytest.approx([2, 4, 8], abs=0.3)


@timeless
async def test_the_next_server_is_asked_when_one_is_not_believed() -> None:
    registrar = FakeRegistrar(PBX, SPARE)
    registrar.scripts[SPARE] = [registrar.accepts()]
    async with supervised(registrar) as supervisor:
        await turns()
        registrar.hear(NotTrusted(PBX, "shows a certificate that has expired on 2026-04-30"))
        await turns()
        assert supervisor.status.state == "registered"
    assert registrar.asked()[:2] == [PBX, SPARE]


@timeless
async def test_servers_that_are_away_are_looked_for_while_one_only_wants_no_registration() -> None:
    registrar = FakeRegistrar(PBX, SPARE)
    registrar.scripts = {
        PBX: [registrar.refuses(408, "Request Timeout")] * 9,
        SPARE: [registrar.refuses(408, "Request Timeout")] * 9,
    }
    registrar.there[SPARE] = False
    async with supervised(registrar) as supervisor:
        await asyncio.sleep(20)
        registrar.there[SPARE] = True
        registrar.scripts[SPARE] = [registrar.accepts()]
        await asyncio.sleep(4.1)
        assert supervisor.status.server == "spare.example:5060 (192.0.2.20)"
        assert supervisor.status.state == "registered"
