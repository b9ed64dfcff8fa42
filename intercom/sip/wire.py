"""What the network says, made safe to read: pure functions over the text of a message.

Rule: whatever comes in, something harmless comes out; nothing here raises.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote

_CONTACTS = re.compile(r"^(?:Contact|m)[ \t]*:(.*)$", re.IGNORECASE | re.MULTILINE)
_TIMES = re.compile(r";[ \t]*expires[ \t]*=[ \t]*(\d+)", re.IGNORECASE)
_NO_TIME = re.compile(r"^Expires[ \t]*:[ \t]*0+[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_RETRY_AFTER = re.compile(r"^Retry-After[ \t]*:[ \t]*(\d{1,9})(?![\d.])", re.IGNORECASE | re.MULTILINE)
_IN_THE_CLEAR = re.compile(r"^m=audio [1-9]\S* RTP/AVPF?[ \t]", re.MULTILINE)
_NAME_ADDR = re.compile(
    r'(?:"(?:[^"\\]|\\.)*"|[^<>"]*)\s*<(?P<inner>[^<>"]*)>[^<>"]*|(?P<plain>[^<>"]*)', re.DOTALL
)

_VALUE = re.compile(r'(?:"(?:[^"\\]|\\.)*"|<[^<>]*>|[^,"<])+')
_REDIRECTION = re.compile(r"SIP/2\.0 (?P<status>3\d\d) (?P<reason>[^\r\n]{0,100})", re.ASCII)
_FOLD = re.compile(r"\r?\n[ \t]+")
_CONTACT = re.compile(r"^(?:Contact|m)[ \t]*:(?P<value>.*)$", re.IGNORECASE | re.MULTILINE)
_ENTRY = re.compile(r'(?:"(?:[^"\\]|\\.)*"|<[^<>]*>|[^",<>])+')
_SAFE_URI = re.compile(
    r"(?P<address>sip:(?:[\w.!~*'()&=+$,/%-]{1,128}@)?(?:[A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\])(?::\d{1,5})?)"
    r"(?P<parameters>(?:;[^;?\s]*)*)(?:\?\S*)?",
    re.IGNORECASE | re.ASCII,
)
_TRANSPORT = re.compile(r";transport=(?:udp|tcp)(?=;|$)", re.IGNORECASE)
_QUALITY = re.compile(
    r";[ \t]*q[ \t]*=[ \t]*(?P<q>0(?:\.\d{0,3})?|1(?:\.0{0,3})?)[ \t]*(?=;|$)", re.IGNORECASE
)
MOST_CONTACTS = 10
LONGEST = 255
"""So many letters of what others say are believed to be an address, or kept as words."""


def printable(text: str, most: int = LONGEST) -> str:
    """Words of the network for log, journal and terminal: none move a cursor, and they have an end."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:most])


def address_of(uri: str) -> str:
    """Reduce a From or To value to `sip:user@host`: no display name, port or parameters.

    A display name may hold anything, also another address in brackets: it is skipped as RFC 3261 section 25
    spells it, and a value of any other form is nobody's address. So is one that is too long: cut, it could be
    somebody else's.
    """
    match = _NAME_ADDR.fullmatch(uri.strip())
    if match is None:
        return "sip:"
    bare = (match["inner"] or match["plain"] or "").partition(";")[0].partition("?")[0]
    scheme, _, rest = bare.partition(":")
    user, at, host = rest.rpartition("@")
    host = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    address = f"{scheme.lower()}:{user}{at}{host.lower()}"
    return address if len(address) <= LONGEST else "sip:"


def from_of(message: str) -> str:
    """Who says that he sends a request; the server vouches for it or not."""
    values = _values(message, "(?:From|f)")
    return address_of(values[0]) if values else "sip:"


def asserted_in(message: str) -> list[str]:
    """Who calls, as a server says that knows (P-Asserted-Identity, RFC 3325); a mere number says nothing."""
    names = (address_of(value) for value in _values(message, "P-Asserted-Identity"))
    return [name for name in names if not name.startswith("tel:")]


def diverted_by(message: str) -> str:
    """Whose telephone sent a call on to us, the last one if several did; "" if none.

    That is the first Diversion (RFC 5806 section 6.2), or the one before ourselves in History-Info (RFC 7044
    section 5).
    """
    diverted = _values(message, "Diversion")[:1] or _values(message, "History-Info")[-2:-1]
    return address_of(diverted[0]) if diverted else ""


def _values(message: str, name: str) -> list[str]:
    """The values of a header, from the top: in several headers, between commas, in lines that go on."""
    head = re.split(r"\r?\n\r?\n", message, maxsplit=1)[0]
    lines = re.findall(rf"^{name}[ \t]*:((?:.*\r?\n[ \t])*.*)$", head, re.IGNORECASE | re.MULTILINE)
    return [value.strip() for line in lines for value in _VALUE.findall(line) if value.strip()]


def transfer_target(refer_to: str) -> str | None:
    """Reduce a Refer-To (RFC 3515) to `sip:user@host`; None if it asks for more than a call or a replacement.

    A URI may carry header fields for the INVITE (RFC 3261 section 19.1.1). Only Replaces (RFC 3891) is taken
    from others, with the `Require=replaces` that RFC 5589 section 7.3 puts beside it: whoever sends us there
    must not choose our From or Route. Nor may it lead elsewhere than it says, by `maddr`.
    """
    match = _NAME_ADDR.fullmatch(refer_to.strip())
    if match is None:
        return None
    uri, asks, fields = (match["inner"] or match["plain"] or "").partition("?")
    if len(uri) > LONGEST or _leads_elsewhere(uri):
        return None
    wishes = fields.lower().split("&")
    if asks and [wish.partition("=")[0] for wish in wishes if wish != "require=replaces"] != ["replaces"]:
        return None
    return address_of(refer_to)


def _leads_elsewhere(uri: str) -> bool:
    """Tell whether a request would go to another host than the URI names (RFC 3261 section 19.1.1, maddr)."""
    parameters = (part.partition("=")[0] for part in uri.split(";")[1:])
    return any(unquote(name).strip().lower() == "maddr" for name in parameters)


def is_bound(answer: str) -> bool:
    """Tell whether the 200 to a REGISTER grants a binding: a Contact whose time is not 0 (RFC 3261, 10.3)."""
    no_time = _NO_TIME.search(answer) is not None
    for contacts in _CONTACTS.findall(answer):
        times = _TIMES.findall(contacts)
        if any(time.strip("0") for time in times) or not (times or no_time):
            return True
    return False


def retry_after(answer: str) -> int:
    """The seconds in Retry-After (RFC 3261 section 20.33); 0 if there are none that can be read."""
    found = _RETRY_AFTER.search(answer)
    return int(found[1]) if found else 0


def offers_clear_sound(message: str) -> bool:
    """Tell whether the SDP of a message has sound that is not encrypted."""
    return _IN_THE_CLEAR.search(message) is not None


class Redirection(NamedTuple):
    """An answer that tells to call elsewhere, and its contacts, the best first."""

    status: int
    reason: str
    contacts: tuple[str, ...]


def redirection_of(answer: str) -> Redirection | None:
    """What a redirection says (RFC 3261 sections 8.1.3.4 and 20.10); None for any other message.

    Ten contacts at most, as `sip:user@host:port;transport=…`, none too long or with `maddr`: what else an
    address may carry (headers, other parameters, another scheme) is left out, or the whole address with it.
    """
    match = _REDIRECTION.match(answer)
    if match is None:
        return None
    head = _FOLD.sub(" ", answer.replace("\r\n", "\n").partition("\n\n")[0])
    found: dict[str, float] = {}
    for header in _CONTACT.finditer(head):
        for entry in _ENTRY.finditer(header["value"]):
            address, quality = _contact(entry[0])
            if address:
                found.setdefault(address, quality)
    best = tuple(sorted(found, key=lambda address: -found[address])[:MOST_CONTACTS])
    return Redirection(int(match["status"]), printable(match["reason"]), best)


def _contact(entry: str) -> tuple[str, float]:
    """One value of a Contact: its address, "" for none that can be called, and its q; 1 where it has none."""
    _, bracket, rest = entry.rpartition("<")
    uri, _, parameters = rest.partition(">") if bracket else entry.strip().partition(";")
    match = _SAFE_URI.fullmatch(uri.strip())
    if match is None or len(match["address"]) > LONGEST or _leads_elsewhere(match["parameters"]):
        return "", 0.0
    transport = _TRANSPORT.search(match["parameters"])
    quality = _QUALITY.search(parameters if bracket else f";{parameters}")
    scheme, _, address = match["address"].partition(":")
    return (
        f"{scheme.lower()}:{address}{transport[0].lower() if transport else ''}",
        float(quality["q"]) if quality else 1.0,
    )
