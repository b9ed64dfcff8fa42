"""What a registrar's answer grants and wishes, however it is spelled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom.sip.wire import is_bound, retry_after


def answer(*headers: str) -> str:
    return "".join(f"{line}\r\n" for line in ("SIP/2.0 200 OK", *headers, "Content-Length: 0", ""))


@pytest.mark.parametrize(
    ("headers", "bound"),
    [
        (["Contact: <sip:door@192.0.2.1>;expires=300"], True),
        (["m: <sip:door@192.0.2.1>;expires=300"], True),
        (["Contact: <sip:door@192.0.2.1>"], True),
        (["Contact: <sip:door@192.0.2.1>", "Expires: 300"], True),
        (["Contact: <sip:door@192.0.2.1>;expires=4294967296"], True),
        (["Contact: <sip:a@192.0.2.1>;expires=0, <sip:b@192.0.2.1>;expires=60"], True),
        (["Contact: <sip:door@192.0.2.1>;expires=60", "Expires: 0"], True),
        (["Contact: <sip:door@192.0.2.1>;expires=0"], False),
        (["Contact: <sip:door@192.0.2.1>;Expires = 00"], False),
        (["Contact: <sip:door@192.0.2.1>", "Expires: 0"], False),
        (["Expires: 300"], False),
        ([], False),
    ],
)
def test_a_binding_has_a_contact_and_some_time(headers: list[str], bound: bool) -> None:
    assert is_bound(answer(*headers)) is bound


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("Retry-After: 5", 5),
        ("retry-after:3600;duration=60", 3600),
        ("Retry-After: 18000 (at home)", 18000),
        ("Retry-After: 0", 0),
        ("Retry-After: -5", 0),
        ("Retry-After: 1.5", 0),
        ("Retry-After: soon", 0),
        ("Retry-After: 99999999999999999999", 0),
        ("Retry-After: Fri, 01 Jan 2027 00:00:00 GMT", 0),
        ("X-Retry-After: 5", 0),
    ],
)
def test_a_wish_to_be_left_alone(header: str, seconds: int) -> None:
    assert retry_after(answer(header)) == seconds


@given(st.text())
def test_nothing_that_is_said_raises(text: str) -> None:
    assert is_bound(f"Contact:{text}\r\nExpires:{text}\r\n") in {True, False}
    assert retry_after(f"Retry-After:{text}\r\n") >= 0
