"""Who a From value names. Needs pjsua2, which the engine imports."""

import pytest

from intercom.sip.wire import address_of


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("sip:flat1@site.example", "sip:flat1@site.example"),
        ("<sip:flat1@Site.Example:5060;transport=tcp>;tag=1", "sip:flat1@site.example"),
        ('"Flat 1" <sip:flat1@site.example>', "sip:flat1@site.example"),
        ("Flat 1 <sip:flat1@site.example>", "sip:flat1@site.example"),
        ('"<sip:flat1@site.example>" <sip:evil@bad.example>', "sip:evil@bad.example"),
        ('"a\\" <sip:flat1@site.example>" <sip:evil@bad.example>', "sip:evil@bad.example"),
        ('"<sip:flat1@site.example>', "sip:"),
        ("<sip:flat1@site.example> <sip:evil@bad.example>", "sip:"),
        ("<sip:flat1@[2001:db8::1]:5060>", "sip:flat1@[2001:db8::1]"),
    ],
)
def test_the_address_is_the_address(value: str, address: str) -> None:
    assert address_of(value) == address
