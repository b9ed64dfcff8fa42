"""The zone's lines, read by no name server of ours but by every phone's resolver."""

from intercom.site.settings import SiteSettings
from intercom.site.zone import zone


def settings(own: str, other: str) -> SiteSettings:
    return SiteSettings.model_validate(
        {
            "listen": {"transports": ["udp", "tls"]},
            "nodes": {"own": f"{own}:5066", "others": [f"{other}:5066"]},
        }
    )


def test_both_nodes_in_every_service() -> None:
    assert zone(settings("10.0.0.10", "10.0.0.9")) == [
        'site.example. 300 IN NAPTR 10 50 "s" "SIPS+D2T" "" _sips._tcp.site.example.',
        'site.example. 300 IN NAPTR 20 50 "s" "SIP+D2U" "" _sip._udp.site.example.',
        "_sips._tcp.site.example. 300 IN SRV 10 50 5061 site1.site.example.",
        "_sips._tcp.site.example. 300 IN SRV 10 50 5061 site2.site.example.",
        "_sip._udp.site.example. 300 IN SRV 10 50 5060 site1.site.example.",
        "_sip._udp.site.example. 300 IN SRV 10 50 5060 site2.site.example.",
        "site1.site.example. 300 IN A 10.0.0.9",
        "site2.site.example. 300 IN A 10.0.0.10",
    ]


def test_it_does_not_matter_where_they_are_printed() -> None:
    assert zone(settings("10.0.0.10", "10.0.0.9")) == zone(settings("10.0.0.9", "10.0.0.10"))
