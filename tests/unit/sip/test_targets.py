"""Where a registrar's name leads, told by a name server that is a table."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom.sip.targets import MOST_TARGETS, NoRecord, NotFound, Server, Service, Way, find, ordered

SERVICES = {
    "_sip._udp.site.example": [Service(20, 0, 5070, "two.example"), Service(10, 0, 5062, "one.example")],
    "_sip._tcp.site.example": [Service(10, 0, 5080, "two.example")],
    "_sips._tcp.site.example": [Service(10, 0, 5081, "two.example")],
    "_sip._udp.half.example": [Service(10, 0, 5060, "gone.example"), Service(20, 0, 5060, "two.example")],
    "_sip._udp.lost.example": [Service(10, 0, 5060, "gone.example")],
    "_sip._udp.never.example": [Service(0, 0, 0, "")],
    "_sip._udp.many.example": [Service(number, 0, 5060 + number, "one.example") for number in range(40)],
}
WAYS = {
    "tcp-first.example": [
        Way(10, 20, "s", "SIP+D2U", "_sip._udp.site.example"),
        Way(10, 10, "S", "sip+d2t", "_sip._tcp.site.example"),
        Way(1, 1, "s", "SIPS+D2T", "_sips._tcp.site.example"),
        Way(1, 2, "u", "E2U+sip", "elsewhere.example"),
    ],
    "plain.example": [Way(10, 10, "s", "SIP+D2T", "_sip._tcp.nowhere.example")],
}
ADDRESSES = {
    "one.example": ["192.0.2.1"],
    "two.example": ["192.0.2.2", "192.0.2.3"],
    "pbx.example": ["192.0.2.9"],
    "half.example": ["192.0.2.8"],
    "both.example": ["192.0.2.6", "2001:db8::6"],
    "plain.example": ["192.0.2.5"],
}


class Table:
    """A name server; `fault` is what it says about SRV records instead of an answer."""

    def __init__(self, fault: OSError | None = None) -> None:
        self.fault = fault
        self.asked: list[str] = []

    async def ways(self, host: str) -> list[Way]:
        self.asked.append(f"NAPTR {host}")
        if self.fault is not None:
            raise self.fault
        if host not in WAYS:
            raise NoRecord("no such record")
        return list(WAYS[host])

    async def services(self, name: str) -> list[Service]:
        self.asked.append(name)
        if self.fault is not None:
            raise self.fault
        if name not in SERVICES:
            raise NoRecord("no such name")
        return SERVICES[name]

    async def addresses(self, host: str) -> list[str]:
        self.asked.append(host)
        if host not in ADDRESSES:
            raise NoRecord("no such name")
        return ADDRESSES[host]


def places(
    host: str,
    port: int | None = None,
    transport: str = "udp",
    *,
    names: Table | None = None,
    known: bool = False,
) -> list[str]:
    """Where `find` leads, as address:port:priority."""
    chance = random.Random(1).random
    targets = asyncio.run(find(host, port, transport, names or Table(), chance, known=known))
    assert all(target.transport == transport for target in targets)
    return [f"{target.address}:{target.port}:{target.priority}" for target in targets]


def test_a_number_is_not_looked_up() -> None:
    names = Table()
    assert places("192.0.2.77", names=names) == ["192.0.2.77:5060:0"]
    assert places("192.0.2.77", 5099, names=names) == ["192.0.2.77:5099:0"]
    assert names.asked == []


def test_a_port_leaves_srv_out() -> None:
    names = Table()
    assert places("two.example", 5099, names=names) == ["192.0.2.2:5099:0", "192.0.2.3:5099:0"]
    assert names.asked == ["two.example"]


def test_srv_records_in_the_order_of_their_priority() -> None:
    assert places("site.example") == ["192.0.2.1:5062:10", "192.0.2.2:5070:20", "192.0.2.3:5070:20"]


def test_each_transport_has_records_of_its_own() -> None:
    assert places("site.example", transport="tcp") == ["192.0.2.2:5080:10", "192.0.2.3:5080:10"]
    assert places("site.example", transport="tls") == ["192.0.2.2:5081:10", "192.0.2.3:5081:10"]


def test_tls_has_a_port_of_its_own_and_never_falls_back() -> None:
    names = Table()
    assert places("pbx.example", transport="tls", names=names) == ["192.0.2.9:5061:0"]
    assert names.asked == ["_sips._tcp.pbx.example", "pbx.example"]
    assert places("192.0.2.7", transport="tls") == ["192.0.2.7:5061:0"]


def test_without_srv_the_address_at_the_default_port() -> None:
    names = Table()
    assert places("pbx.example", names=names) == ["192.0.2.9:5060:0"]
    assert names.asked == ["_sip._udp.pbx.example", "pbx.example"]


def test_a_server_without_an_address_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    assert places("half.example") == ["192.0.2.2:5060:20", "192.0.2.3:5060:20"]
    assert "gone.example" in caplog.text


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("lost.example", "none of the servers of lost.example resolves: gone.example"),
        ("never.example", "never.example says that it has no SIP over UDP"),
        ("nobody.example", "the name nobody.example does not resolve: no such name"),
    ],
)
def test_what_leads_nowhere_is_said(host: str, words: str) -> None:
    with pytest.raises(NotFound) as caught:
        places(host)
    assert str(caught.value) == words


def test_a_silent_name_server_does_not_lead_away_from_known_servers() -> None:
    names = Table(TimeoutError("no answer from the name server in 2 s"))
    with pytest.raises(NotFound, match=r"the servers of half\.example cannot be asked for: no answer"):
        places("half.example", names=names, known=True)


def test_a_silent_name_server_is_no_reason_not_to_use_a_hosts_file() -> None:
    assert places("half.example", names=Table(TimeoutError("silence"))) == ["192.0.2.8:5060:0"]


def test_a_list_without_end_is_cut() -> None:
    assert len(places("many.example")) == MOST_TARGETS


def test_a_target_is_its_place() -> None:
    one = Server("192.0.2.1", 5060, "udp", "one.example", 10)
    assert one == Server("192.0.2.1", 5060, "udp", "alias.example", 20)
    assert one != Server("192.0.2.1", 5060, "tcp", "one.example", 10)
    assert (str(one), str(Server("192.0.2.1", 5060, "udp", "192.0.2.1"))) == (
        "one.example:5060 (192.0.2.1)",
        "192.0.2.1:5060",
    )


# The lot (RFC 2782)


def drawn(weights: Sequence[int], times: int = 20_000) -> dict[int, float]:
    """How often each weight comes first."""
    chance = random.Random(2782).random
    services = [Service(1, weight, 5060, f"{weight}.example") for weight in weights]
    first = Counter(ordered(services, chance)[0].weight for _ in range(times))
    return {weight: first[weight] / times for weight in weights}


def test_the_share_of_each_is_its_weight() -> None:
    shares = drawn([60, 30, 10])
    assert shares[60] == pytest.approx(0.6, abs=0.02)
    assert shares[30] == pytest.approx(0.3, abs=0.02)
    assert shares[10] == pytest.approx(0.1, abs=0.02)


def test_weight_0_has_a_small_chance_beside_others() -> None:
    assert 0 < drawn([0, 20])[0] < 0.1


def test_the_rest_is_drawn_in_the_same_way() -> None:
    chance = random.Random(1).random
    services = [Service(1, weight, 5060, f"{weight}.example") for weight in (80, 15, 5)]
    orders = Counter(tuple(each.weight for each in ordered(services, chance)) for _ in range(20_000))
    assert set(orders) == {(80, 15, 5), (80, 5, 15), (15, 80, 5), (15, 5, 80), (5, 80, 15), (5, 15, 80)}
    assert orders[80, 15, 5] / (orders[80, 15, 5] + orders[80, 5, 15]) == pytest.approx(15 / 21, abs=0.03)


services = st.builds(
    Service, st.integers(0, 3), st.integers(0, 65535), st.just(5060), st.text("abc", min_size=1)
)


@given(st.lists(services), st.floats(0, 1, exclude_max=True))
def test_no_record_is_lost_and_no_priority_comes_before_its_turn(
    listed: list[Service], chance: float
) -> None:
    order = ordered(listed, lambda: chance)
    assert Counter(order) == Counter(listed)
    assert [each.priority for each in order] == sorted(each.priority for each in listed)


def found(host: str, *, names: Table | None = None, known: bool = False) -> list[str]:
    """Where `find` leads if the registrar names neither port nor transport, as transport:place."""
    targets = asyncio.run(find(host, None, None, names or Table(), lambda: 0.0, known=known))
    return [f"{target.transport}:{target.place}" for target in targets]


def test_naptr_says_which_transport_is_preferred_but_never_tls() -> None:
    assert found("tcp-first.example") == ["tcp:192.0.2.2:5080", "tcp:192.0.2.3:5080"]


def test_without_naptr_udp_comes_before_tcp() -> None:
    names = Table()
    assert found("site.example", names=names)[0] == "udp:192.0.2.1:5062"
    assert names.asked[:2] == ["NAPTR site.example", "_sip._udp.site.example"]


def test_naptr_that_leads_nowhere_leaves_the_address() -> None:
    assert found("plain.example") == ["udp:192.0.2.5:5060"]


def test_a_transport_in_the_address_leaves_naptr_out() -> None:
    names = Table()
    assert places("site.example", transport="tcp", names=names) == ["192.0.2.2:5080:10", "192.0.2.3:5080:10"]
    assert "NAPTR site.example" not in names.asked


def test_a_name_server_that_is_silent_about_naptr() -> None:
    assert found("pbx.example", names=Table(TimeoutError("silence"))) == ["udp:192.0.2.9:5060"]
    with pytest.raises(NotFound, match="silence"):
        found("pbx.example", names=Table(TimeoutError("silence")), known=True)


def test_ipv6_stands_in_brackets() -> None:
    assert found("both.example") == ["udp:192.0.2.6:5060", "udp:[2001:db8::6]:5060"]
    assert found("2001:db8::1") == ["udp:[2001:db8::1]:5060"]
    server = Server("2001:db8::1", 5060, "udp", "pbx.example")
    assert str(server) == "pbx.example:5060 (2001:db8::1)"
    assert str(Server("2001:db8::1", 5060, "udp", "2001:db8::1")) == "[2001:db8::1]:5060"
