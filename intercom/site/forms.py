"""What a name, a number and an address of a site may look like.

Rule: what passes here can stand in a line of Kamailio's language, in its lists and in SQL as it is:
no quote, no separator, no line break.
"""

import re

from intercom.settings.schema import SIP_PORT

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = rf"({_LABEL}\.)*{_LABEL}"
_PORT = r"(:(?P<port>\d{1,5}))?"
_TRANSPORT = r"(;transport=(udp|tcp|tls|sctp))?"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NUMBER = re.compile(r"\+?[0-9]{2,15}")
_E164 = re.compile(r"\+[1-9][0-9]{1,14}")
_COUNTRY = re.compile(r"[1-9][0-9]{0,2}")
_PREFIX = re.compile(r"\+?[0-9]{0,15}")
_SERVER = re.compile(rf"sip:{_HOST}{_PORT}{_TRANSPORT}")
_USERNAME = re.compile(r"[A-Za-z0-9._~!*+@-]{1,64}")
_ADDRESS = re.compile(
    rf"sips?:[A-Za-z0-9._~!*+-]{{1,64}}@(?i:{_HOST}){_PORT}{_TRANSPORT}|tel:\+?[0-9]{{2,15}}"
)


def _matching(form: re.Pattern[str], value: str, reason: str) -> str:
    match = form.fullmatch(value)
    if match is None or not value.isascii():
        raise ValueError(f"{value!r} {reason}")
    port = match.groupdict().get("port") or SIP_PORT
    if not 0 < int(port) < 65536:
        raise ValueError(f"{value!r} names a port that is not between 1 and 65535")
    return value


def name(value: str) -> str:
    """A user's, group's or gateway's name."""
    return _matching(
        _NAME, value, "is not a name: lower-case letters, digits, '.', '_' and '-', at most 64, no '.' first"
    )


def domain(value: str) -> str:
    """A domain in lower case, or an IPv4 address."""
    if len(value) > 253:
        raise ValueError("is longer than 253 letters")
    return _matching(re.compile(_HOST), value, "is not a domain in lower case such as site.example")


def number(value: str) -> str:
    """A telephone number as it is dialled."""
    return _matching(_NUMBER, value, "is not a number such as +49301234567 or 112")


def e164(value: str) -> str:
    """A telephone number with its country (E.164)."""
    return _matching(_E164, value, "is not a number with its country such as +49301234567")


def prefix(value: str) -> str:
    """How telephone numbers begin; empty for every number."""
    return _matching(_PREFIX, value, "is not the beginning of a number such as +49 or 112")


def country(value: str) -> str:
    """A country's telephone code."""
    return _matching(_COUNTRY, value, "is not a country's telephone code such as 49")


def server(value: str) -> str:
    """The URI of a server, without a user."""
    return _matching(_SERVER, value, "is not sip:HOST or sip:HOST:PORT, with ;transport=… if wanted")


def place(server: str) -> tuple[str, int, str]:
    """Host, port and transport of the URI of a server, however much of it is written out."""
    rest, _, transport = server.removeprefix("sip:").partition(";transport=")
    host, _, port = rest.partition(":")
    return host, int(port or (5061 if transport == "tls" else SIP_PORT)), transport or "udp"


def address(value: str) -> str:
    """A URI that can be called."""
    return _matching(
        _ADDRESS,
        value,
        "is not an address that can be called, such as sip:office@site.example or tel:+4930123",
    )


def display(value: str) -> str:
    """A name for people: one line without what a SIP header would have to escape."""
    if not value.isprintable() or len(value) > 64 or set(value) & set('"\\<>'):
        raise ValueError("a display name is one line of at most 64 letters without quotes and angle brackets")
    return value


def username(value: str) -> str:
    """A user name somebody else has given us."""
    return _matching(_USERNAME, value, "is not a user name of letters, digits and . _ ~ ! * + - @")


def password(value: str) -> str:
    """A password somebody else has given us; it is never shown."""
    if not re.fullmatch(r"[!#-\[\]-~]{1,128}", value):
        raise ValueError(
            "the password must be 1 to 128 ASCII letters, digits and signs without quotes and spaces"
        )
    return value


def ha1(value: str) -> str:
    """The digest of a password; it is never shown."""
    if not re.fullmatch(r"[0-9a-f]{32}|[0-9a-f]{64}", value):
        raise ValueError("a password's digest is 32 or 64 hexadecimal digits")
    return value


def key(value: str) -> str:
    """The key that the servers of a site share; it is never shown."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{32}", value):
        raise ValueError("the site's key is 32 hexadecimal digits")
    return value


def dialled(value: str, country: str | None) -> str:
    """A telephone number as the site knows it, with its country if it has one: as gateway.cfg does it."""
    if value.startswith("00"):
        return f"+{value[2:]}"
    if value.startswith("0") and country:
        return f"+{country}{value[1:]}"
    return value


def permits(prefix: str, number: str) -> bool:
    """Whether who may call a prefix may call a number: as gateway.cfg does it."""
    return number == prefix or (prefix[:1] in ("", "+", "0") and number.startswith(prefix))


def is_number(value: str) -> bool:
    """Tell whether a text is a telephone number."""
    return _NUMBER.fullmatch(value) is not None and value.isascii()
