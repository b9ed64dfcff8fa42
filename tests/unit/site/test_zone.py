"""The zone's lines, read by no name server of ours but by every phone's resolver."""

from intercom.site.settings import SiteSettings
from intercom.site.zone import zone


def settings(own: str, other: str) -> SiteSettings:
    """Of a server that phones reach at one address and the other server at another one."""
    return SiteSettings.model_validate(
        {
            "listen": {"addresses": [own], "transports": ["udp", "tls"]},
            "nodes": {"own": "192.168.9.1:5066", "others": [f"{other}:5066"]},
        }
    )


def test_a_server_speaks_for_the_addresses_that_phones_reach() -> None:
    assert zone(settings("10.0.0.1", "192.168.9.2")) == [
        'site.example. 300 IN NAPTR 10 50 "s" "SIPS+D2T" "" _sips._tcp.site.example.',
        'site.example. 300 IN NAPTR 20 50 "s" "SIP+D2U" "" _sip._udp.site.example.',
        "_sips._tcp.site.example. 300 IN SRV 10 50 5061 site-10-0-0-1.site.example.",
        "_sip._udp.site.example. 300 IN SRV 10 50 5060 site-10-0-0-1.site.example.",
        "site-10-0-0-1.site.example. 300 IN A 10.0.0.1",
    ]


def test_the_lines_of_two_servers_stand_together() -> None:
    one, two = zone(settings("10.0.0.1", "192.168.9.2")), zone(settings("10.0.0.2", "192.168.9.2"))
    assert set(one) & set(two) == {line for line in one if "NAPTR" in line}
    assert "site-10-0-0-2.site.example. 300 IN A 10.0.0.2" in two
