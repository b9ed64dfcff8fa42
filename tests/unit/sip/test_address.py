"""Whom the headers of a message name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom.sip.wire import (
    MOST_CONTACTS,
    Redirection,
    address_of,
    asserted_in,
    diverted_by,
    from_of,
    printable,
    redirection_of,
    transfer_target,
)


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
        (f"<sip:{'a' * 238}@site.example>", f"sip:{'a' * 238}@site.example"),
        (f"<sip:{'a' * 238}@site.example.evil.example>", "sip:"),
        ("<sip:flat1@[2001:db8::1]:5060>", "sip:flat1@[2001:db8::1]"),
    ],
)
def test_the_address_is_the_address(value: str, address: str) -> None:
    assert address_of(value) == address


def invite(*lines: str) -> str:
    return "\r\n".join(["INVITE sip:door@192.0.2.1 SIP/2.0", *lines, "", "Diversion: <sip:body@bad.example>"])


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ([], []),
        (["P-Asserted-Identity: <sip:flat1@site.example>"], ["sip:flat1@site.example"]),
        (["p-asserted-identity:sip:flat1@site.example;x=1"], ["sip:flat1@site.example"]),
        (['P-Asserted-Identity: "A, B" <sip:a@b.example>, <tel:+4930123>'], ["sip:a@b.example"]),
        (
            ["P-Asserted-Identity: <sip:a@b.example>,", " <sip:c@d.example>"],
            ["sip:a@b.example", "sip:c@d.example"],
        ),
        (["P-Asserted-Identity: <sip:a@b.example>", "P-Asserted-Identity: ><"], ["sip:a@b.example", "sip:"]),
        (["X-P-Asserted-Identity: <sip:a@b.example>", "P-Asserted-Identity-X: <sip:a@b.example>"], []),
    ],
)
def test_whom_the_server_vouches_for(lines: list[str], names: list[str]) -> None:
    assert asserted_in(invite(*lines)) == names


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        ([], ""),
        (["Diversion: <sip:flat2@site.example>;reason=unconditional"], "sip:flat2@site.example"),
        (["Diversion: <sip:last@a.example>, <sip:first@a.example>"], "sip:last@a.example"),
        (["Diversion: <sip:last@a.example>", "Diversion: <sip:first@a.example>"], "sip:last@a.example"),
        (["Diversion: <tel:+4930123>"], "tel:+4930123"),
        (["History-Info: <sip:door@site.example>;index=1"], ""),
        (
            [
                "History-Info: <sip:flat2@site.example?Reason=sip%3Bcause%3D302>;index=1,",
                "\t<sip:door@site.example;cause=302>;index=1.1;mp=1",
            ],
            "sip:flat2@site.example",
        ),
        (['Diversion: "', "History-Info: <"], ""),
    ],
)
def test_who_sent_a_call_on(lines: list[str], address: str) -> None:
    assert diverted_by(invite(*lines)) == address


@pytest.mark.parametrize(
    ("value", "target"),
    [
        ("sip:flat2@site.example", "sip:flat2@site.example"),
        ('"Flat 2" <sip:flat2@Site.Example:5060;transport=tcp>', "sip:flat2@site.example"),
        ("<sip:flat2@site.example?Replaces=1%3Bto-tag%3D2%3Bfrom-tag%3D3>", "sip:flat2@site.example"),
        ("<sip:flat2@site.example?replaces=1&Require=replaces>", "sip:flat2@site.example"),
        ("<sip:flat2@site.example?Replaces=1&Replaces=2>", None),
        ("<sip:flat2@site.example?Replaces=1&Require=x>", None),
        ("<sip:flat2@site.example?Require=x>", None),
        ("<sip:flat2@site.example?Require=replaces>", None),
        ("<sip:flat2@site.example?Supported=x>", None),
        ("<sip:flat2@site.example?Replaces=1&Supported=x>", None),
        ("<sip:flat2@site.example?>", None),
        ("<sip:flat2@site.example;maddr=192.0.2.66>", None),
        ("<sip:flat2@site.example;transport=udp; %4DADDR =192.0.2.66?Replaces=1>", None),
        ("sip:flat2@site.example;maddr", None),
        (f"<sip:{'a' * 238}@site.example>", f"sip:{'a' * 238}@site.example"),
        (f"<sip:{'a' * 239}@site.example>", None),
        (f"<sip:flat2@site.example;x={'a' * 255}>", None),
        ("<sip:flat2@site.example?From=sip:other@site.example>", None),
        ("<sip:flat2@site.example?Replaces=1&Route=%3Csip:192.0.2.1%3E>", None),
        ("<sip:flat2@site.example?body=x>", None),
        ("<sip:flat2@site.example> <sip:evil@bad.example>", None),
        ("tel:+4930123", "tel:+4930123"),
        ("nonsense <>", ":"),
    ],
)
def test_a_transfer_asks_for_a_call_and_nothing_else(value: str, target: str | None) -> None:
    assert transfer_target(value) == target


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["X-From: <sip:c@d>", "f : <sip:flat1@site.example>;tag=1"], "sip:flat1@site.example"),
        (["From: Flat 1 <sip:flat1@Site.Example:5060>;tag=1"], "sip:flat1@site.example"),
        ([], "sip:"),
    ],
)
def test_who_says_that_he_sends_a_request(lines: list[str], address: str) -> None:
    assert from_of(invite(*lines)) == address


def test_words_of_others_are_kept_so_far_and_no_further() -> None:
    assert printable("a\x1b[2J" + "b" * 300) == "a?[2J" + "b" * 250


FLAT, DESK = "sip:flat1@site.example", "sip:desk@192.0.2.7:5070;transport=tcp"


def redirected_to(message: str) -> tuple[str, ...]:
    found = redirection_of(message)
    return () if found is None else found.contacts


def answer(*headers: str, status: int = 302) -> str:
    return "\r\n".join([f"SIP/2.0 {status} Moved", "To: <sip:a@b.example>", *headers, "", "v=0"])


@pytest.mark.parametrize(
    ("headers", "addresses"),
    [
        (["Contact: <sip:flat1@site.example>"], [FLAT]),
        (["m:sip:flat1@site.example;q=0.5"], [FLAT]),
        (["CONTACT : <SIP:flat1@site.example>;expires=60"], [FLAT]),
        (['Contact: "A, <sip:x@evil.example>" <sip:flat1@site.example>'], [FLAT]),
        ([f"Contact: <{FLAT}>;q=0.1, <{DESK}>;q=0.9"], [DESK, FLAT]),
        ([f"Contact: <{FLAT}>;q=0.5", f"Contact: <{DESK}>"], [DESK, FLAT]),
        ([f"Contact: <{FLAT}>", f"Contact: <{DESK}>"], [FLAT, DESK]),
        ([f"Contact: <{FLAT}>,", f" <{DESK}>"], [FLAT, DESK]),
        ([f"Contact: <{FLAT}>;q=0.2, <{FLAT}>;q=0.9"], [FLAT]),
        (["Contact: <sip:desk@192.0.2.7:5070;x=y;transport=TCP;lr?Subject=hello>"], [DESK]),
        (["Contact: <sip:proxy.example>"], ["sip:proxy.example"]),
        (["Contact: <sip:a@[2001:db8::1]:5060>"], ["sip:a@[2001:db8::1]:5060"]),
        (["Contact: <sip:a@b.example;maddr=192.0.2.66>", f"Contact: <{FLAT};x=maddr>"], [FLAT]),
        (["Contact: <sip:a@b.example;transport=udp;%6dAddr=192.0.2.66>"], []),
        ([f"Contact: <sip:{'a' * 122}@{'b' * 128}>"], [f"sip:{'a' * 122}@{'b' * 128}"]),
        ([f"Contact: <sip:{'a' * 123}@{'b' * 128}>"], []),
        (["Contact: *"], []),
        (["Contact: <tel:+4989>, <sips:a@b.example>, <sip:a b@c.example>, <>"], []),
        (["Contact: <sip:a@b.example>;q=7", f"Contact: <{FLAT}>;q=0.9"], ["sip:a@b.example", FLAT]),
        (["X-Contact: <sip:a@b.example>"], []),
    ],
)
def test_a_redirection_names_its_addresses_the_best_first(headers: list[str], addresses: list[str]) -> None:
    assert redirected_to(answer(*headers)) == tuple(addresses)


def test_only_a_redirection_redirects() -> None:
    for status in (200, 404, 486):
        assert redirection_of(answer(f"Contact: <{FLAT}>", status=status)) is None


def test_a_redirection_keeps_its_status_and_its_words() -> None:
    assert redirection_of(answer(status=305)) == Redirection(305, "Moved", ())


def test_what_stands_in_the_body_is_no_address() -> None:
    assert redirected_to(f"SIP/2.0 302 Moved\r\nTo: x\r\n\r\nContact: <{FLAT}>\r\n") == ()


def test_a_redirection_has_so_many_addresses_at_most() -> None:
    many = [f"Contact: <sip:{number}@site.example>" for number in range(1000)]
    assert redirected_to(answer(*many)) == tuple(
        f"sip:{number}@site.example" for number in range(MOST_CONTACTS)
    )


@given(st.lists(st.text(), max_size=5), st.text(alphabet='<>",;:@sip*?= \\\r\n\ta.q0', max_size=80))
def test_whatever_a_redirection_says_what_is_dialled_is_an_address(words: list[str], value: str) -> None:
    for address in redirected_to(answer(f"Contact: {value}", *(f"Contact: <sip:{word}>" for word in words))):
        assert address.startswith("sip:")
        assert address.isascii()
        assert address.isprintable()
        assert not set(address) & set(' <>"?\\')
