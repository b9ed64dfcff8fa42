"""Nothing passes that could break out of a line, a string or a list of Kamailio's language."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom.site import forms

FORMS = [
    forms.name,
    forms.domain,
    forms.number,
    forms.e164,
    forms.prefix,
    forms.country,
    forms.server,
    forms.address,
    forms.display,
    forms.username,
    forms.password,
    forms.ha1,
    forms.key,
]
SPECIAL = '"\\\n\r\0'


def passes(form: Callable[[str], str], value: str) -> bool:
    try:
        return form(value) == value
    except ValueError:
        return False


@pytest.mark.parametrize(
    ("form", "value"),
    [
        (forms.name, "kitchen"),
        (forms.name, "2nd.floor_left-1"),
        (forms.name, "a" * 64),
        (forms.domain, "site.example"),
        (forms.domain, "10.0.0.1"),
        (forms.number, "112"),
        (forms.number, "+49301234567"),
        (forms.e164, "+49301234567"),
        (forms.prefix, ""),
        (forms.prefix, "+49"),
        (forms.country, "49"),
        (forms.server, "sip:trunk.example"),
        (forms.server, "sip:10.0.0.1:5060;transport=tcp"),
        (forms.address, "sip:office@site.example:5070;transport=tls"),
        (forms.address, "sips:+4930@site.example"),
        (forms.address, "tel:+49301234567"),
        (forms.display, "Küche, links"),
        (forms.password, "a!#$%&'()*+,-./:;<=>?@[]^_`{|}~z"),
    ],
)
def test_taken(form: Callable[[str], str], value: str) -> None:
    assert form(value) == value


@pytest.mark.parametrize(
    ("form", "value"),
    [
        (forms.name, ""),
        (forms.name, "Kitchen"),
        (forms.name, ".kitchen"),
        (forms.name, "a" * 65),
        (forms.name, "a:b"),
        (forms.name, "a,b"),
        (forms.name, "a;b=c"),
        (forms.name, "küche"),
        (forms.name, "kitchen\n"),
        (forms.domain, "Site.example"),
        (forms.domain, "site..example"),
        (forms.domain, "-site.example"),
        (forms.domain, "a" * 64 + ".example"),
        (forms.number, "+"),
        (forms.number, "1" * 16),
        (forms.number, "١١٢"),
        (forms.e164, "112"),
        (forms.e164, "+0301234"),
        (forms.prefix, "+49*"),
        (forms.country, "0"),
        (forms.server, "sip:user@trunk.example"),
        (forms.server, "sip:trunk.example:0"),
        (forms.server, "sip:trunk.example:65536"),
        (forms.server, "sip:trunk.example;transport=carrier-pigeon"),
        (forms.address, "sip:a@one.example|sip:b@two.example"),
        (forms.address, "sip:a@one.example?Replaces=x"),
        (forms.address, "sip:a@one.example>;q=1"),
        (forms.display, 'a"b'),
        (forms.display, "a" * 65),
        (forms.password, ""),
        (forms.password, "two words"),
        (forms.ha1, "0" * 31),
        (forms.key, "0" * 31),
    ],
)
def test_refused(form: Callable[[str], str], value: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are for a person
        form(value)


@given(st.text(), st.sampled_from(SPECIAL), st.text())
def test_no_form_lets_a_special_sign_pass(before: str, sign: str, after: str) -> None:
    assert not any(passes(form, before + sign + after) for form in FORMS)


def test_a_secret_is_not_in_the_reason() -> None:
    for form in (forms.password, forms.ha1, forms.key):
        with pytest.raises(ValueError, match=r"must|is") as wrong:
            form("hunter two")
        assert "hunter" not in str(wrong.value)


def test_numbers_as_the_site_dials_and_permits_them() -> None:
    assert [forms.dialled(each, "49") for each in ("0049301", "0301", "+49301", "112")] == [
        "+49301",
        "+49301",
        "+49301",
        "112",
    ]
    assert forms.dialled("0301", None) == "0301"
    assert [forms.permits(prefix, "+49301") for prefix in ("", "+49", "+49301", "+43")] == [
        True,
        True,
        True,
        False,
    ]
    assert [forms.permits("112", number) for number in ("112", "1121")] == [True, False]
