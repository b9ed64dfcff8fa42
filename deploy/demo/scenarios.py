"""SIPp scenarios, put together from a few sentences: who calls, who answers, and what happens in the call.

Rule: a scenario is text and knows no port; `Sipp` gives it the network.
"""

from __future__ import annotations

from http import HTTPStatus

from deploy.demo.account import Account

_REASONS = {
    180: "Ringing",
    183: "Session Progress",
    300: "Multiple Choices",
    380: "Alternative Service",
    480: "Temporarily Unavailable",
    486: "Busy Here",
    487: "Request Terminated",
    600: "Busy Everywhere",
    603: "Decline",
}

_SDP = """\
Content-Type: application/sdp
Content-Length: [len]

v=0
o=sipp 1 1 IN IP[local_ip_type] [local_ip]
s=-
c=IN IP[media_ip_type] [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 8 101
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
a=ptime:20
a=sendrecv
"""

_SIP_URI = "sips?:[^&gt;]*"
_CONTACT = "[$contact]"  # SIPp's own [next_url] takes a display name along, which no request line may have

_NO_BODY = "Content-Length: 0\n\n"


def registers(account: Account, contact: str, seconds: int = 3600) -> str:
    """A phone that registers a contact and is asked for its password first."""
    first, second = (
        _send(
            f"REGISTER sip:{account.realm} SIP/2.0\n{_VIA}\nFrom: <{account.uri}>;tag=[pid]x[call_number]\n"
            f"To: <{account.uri}>\nCall-ID: [call_id]\nCSeq: {cseq} REGISTER\nContact: <{contact}>\n"
            f"Expires: {seconds}\nMax-Forwards: 70\n{proof}{_NO_BODY}"
        )
        for cseq, proof in ((1, ""), (2, _proof(account)))
    )
    return _scenario(first, _receive("response", "401", auth=True), second, _receive("response", "200"))


def flood(to: str, user: str = "stranger") -> str:
    """One INVITE a call, from somebody without a password, who listens to no answer.

    Answers are dropped as out of call, so nothing slows the flood down: the rate is that of `Sipp`.
    """
    return _scenario(_send(_invite(f"sip:{user}@[local_ip]", to, user, 1, "") + _SDP, once=True))


def caller(account: Account, to: str, *within: str, challenged: bool = True) -> str:
    """Somebody with a password who calls, talks and hangs up.

    Args:
        account: who calls; the From and the credentials.
        to: URI to call.
        within: steps in the call, such as `info_digits`, `pause`.
        challenged: whether the other side asks for the password (a station called directly does not).
    """
    cseq = 2 if challenged else 1
    steps = []
    if challenged:
        steps += [
            _send(_invite(account.uri, to, account.user, 1, "") + _SDP),
            _receive("response", "100", optional=True),
            _receive("response", "407", auth=True),
            _send(_ack(account.uri, to, 1), once=True),
        ]
    proof = _proof(account) if challenged else ""
    steps += [
        _send(_invite(account.uri, to, account.user, cseq, proof) + _SDP),
        *(_receive("response", code, optional=True) for code in ("100", "180", "183")),
        _receive_answer(),
        _send(_in_dialog("ACK", account.uri, to, str(cseq)) + _NO_BODY, once=True),
    ]
    steps += [step.format(me=account.uri, peer=f"<{to}>[peer_tag_param]") for step in within]
    steps += [_send(_in_dialog("BYE", account.uri, to, "[cseq]") + _NO_BODY), _receive("response", "200")]
    return _scenario(*steps).replace("[next_url]", _CONTACT)


def answers(*within: str, rings_ms: int = 0, early_media: bool = False) -> str:
    """A phone that rings, answers and talks until the caller hangs up.

    Args:
        within: steps in the call, from the side of the phone.
        rings_ms: milliseconds between 180 and 200.
        early_media: 183 with a session instead of 180.
    """
    ringing = _reply(183, _SDP) if early_media else _reply(180)
    return _scenario(
        _receive_invite(),
        ringing,
        pause(rings_ms),
        _reply(200, _SDP, once=False),
        _receive("request", "ACK"),
        *(step.format(me="[$to_uri]", peer="[$from]").replace("[next_url]", _CONTACT) for step in within),
        _receive("request", "BYE"),
        _reply(200),
    )


def forks() -> str:
    """Two phones behind one address: both send early media, each with its own tag; the second answers."""

    def second(message: str) -> str:
        return message.replace("tag=[pid]x", "tag=[pid]y")

    return _scenario(
        _receive_invite(),
        _reply(183, _SDP),
        second(_reply(183, _SDP)),
        pause(300),
        second(_reply(200, _SDP, once=False)),
        _receive("request", "ACK"),
        _receive("request", "BYE"),
        _reply(200),
    )


def rings_reliably() -> str:
    """A phone whose 183 is to be acknowledged by a PRACK (RFC 3262) before it answers."""
    return _scenario(
        _receive_invite(),
        _reply(183, "Require: 100rel\nRSeq: 1\n" + _SDP),
        _receive("request", "PRACK"),
        _reply(200),
        pause(300),
        _reply_to_invite(200, _SDP),
        _receive("request", "ACK"),
        _receive("request", "BYE"),
        _reply(200),
    )


def limits_the_session(seconds: int, refresher: str, *within: str) -> str:
    """A phone that answers and lets the session last so long without a refresh (RFC 4028).

    Args:
        seconds: of Session-Expires.
        refresher: "uac", so the other side is to refresh, or "uas".
        within: steps after the answer, up to the BYE of the other side.
    """
    agreed = f"Require: timer\nSession-Expires: {seconds};refresher={refresher}\n"
    return _scenario(
        _receive_invite(),
        _reply(180),
        _reply(200, agreed + _SDP, once=False),
        _receive("request", "ACK"),
        *(step.format(me="[$to_uri]", peer="[$from]").replace("[next_url]", _CONTACT) for step in within),
        _receive("request", "BYE"),
        _reply(200),
    )


def is_refreshed(seconds: int) -> str:
    """A step: the other side refreshes the session with a re-INVITE, which agrees to the same again."""
    agreed = f"Require: timer\nSession-Expires: {seconds};refresher=uac\n"
    return "\n".join(
        (
            _receive("request", "INVITE"),
            _reply(200, agreed + _SDP, once=False),
            _receive("request", "ACK"),
        )
    )


def answers_and_leaves(*within: str) -> str:
    """A phone that answers, does something in the call and hangs up itself."""
    leaving = _send(_WITHIN.replace("METHOD", "BYE") + _NO_BODY) + "\n" + _receive("response", "200")
    return _scenario(
        _receive_invite(),
        _reply(180),
        _reply(200, _SDP, once=False),
        _receive("request", "ACK"),
        *(
            step.format(me="[$to_uri]", peer="[$from]").replace("[next_url]", _CONTACT)
            for step in (*within, leaving)
        ),
    )


def is_left() -> str:
    """A phone that answers and is hung up on at once: the BYE may come before the ACK."""
    return _scenario(
        _receive_invite(),
        _reply(180),
        _reply(200, _SDP, once=False),
        _receive("request", "ACK", optional=True),
        _receive("request", "BYE"),
        _reply(200),
    )


def refuses(code: int, rings_ms: int | None = None, *headers: str) -> str:
    """A phone that refuses with a final code, at once or after ringing so many milliseconds."""
    ringing = () if rings_ms is None else (_reply(180), pause(rings_ms))
    extra = "".join(f"{header}\n" for header in headers)
    return _scenario(_receive_invite(), *ringing, _reply(code, extra + _NO_BODY), _receive("request", "ACK"))


def rings_forever(*, early_media: bool = False) -> str:
    """A phone that rings until the caller gives up.

    Args:
        early_media: 183 with a session instead of 180.
    """
    return _scenario(
        _receive_invite(),
        _reply(183, _SDP) if early_media else _reply(180),
        _receive("request", "CANCEL"),
        _reply(200),
        _reply_to_invite(487),
        _receive("request", "ACK"),
    )


def mute() -> str:
    """A phone that takes the INVITE and never says a word."""
    return _scenario(_receive_invite(), pause(60_000))


def authentication(user: str, password: str) -> str:
    """What SIPp replaces by the header with the digest."""
    return f"[authentication username={user} password={password}]"


def pause(milliseconds: int) -> str:
    """A step: nothing happens for a while."""
    return f'<pause milliseconds="{milliseconds}"/>' if milliseconds else ""


def info_digits(digits: str) -> str:
    """A step: press keys by SIP INFO (application/dtmf-relay) within the dialog, each accepted with 200."""
    body = "Content-Type: application/dtmf-relay\nContent-Length: [len]\n\nSignal={digit}\nDuration=160\n"
    return "\n".join(
        _send(_INFO + body.format(digit=digit)) + "\n" + _receive("response", "200") for digit in digits
    )


def refers(to: str, status: int = 202) -> str:
    """A step: send the other side to somebody else (REFER) without wanting to hear what becomes of it.

    Args:
        to: the value of Refer-To.
        status: that the other side answers with.
    """
    target = to.replace("&", "&amp;")
    request = f"{_WITHIN}Refer-To: {target}\nRefer-Sub: false\n{_NO_BODY}".replace("METHOD", "REFER")
    return _send(request) + "\n" + _receive("response", str(status))


def asks_again(
    method: str, version: int, how: str = "sendrecv", codec: str = "8 PCMA/8000", media: str = ""
) -> str:
    """A step: offer the session anew within the dialog, accepted with 200.

    Args:
        method: INVITE or UPDATE.
        version: of the session; each offer of a call needs a higher one.
        how: the direction of the sound, or "0.0.0.0" for a hold as RFC 2543 has it.
        codec: payload type and name.
        media: `address:port` that takes the sound from now on; "" for SIPp's own.
    """
    offer = _SDP.replace("sipp 1 1", f"sipp 1 {version + 1}")
    offer = offer.replace("RTP/AVP 8 101", f"RTP/AVP {codec.split(maxsplit=1)[0]} 101").replace(
        "rtpmap:8 PCMA/8000", f"rtpmap:{codec}"
    )
    if how == "0.0.0.0":  # noqa: S104 - nothing binds to it
        offer = offer.replace("c=IN IP[media_ip_type] [media_ip]", "c=IN IP4 0.0.0.0")
    else:
        offer = offer.replace("a=sendrecv", f"a={how}")
    if media:
        address, _, port = media.partition(":")
        offer = offer.replace("[media_ip]", address).replace("[media_port]", port)
    steps = "\n".join(
        (
            _send(_WITHIN.replace("METHOD", method) + offer),
            _receive("response", "100", optional=True),
            _receive("response", "200"),
        )
    )
    if method == "INVITE":
        steps += "\n" + _send(
            _WITHIN.replace("[cseq] METHOD", "[cseq] ACK").replace("METHOD", "ACK") + _NO_BODY, once=True
        )
    return steps


_VIA = "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]"

# The two ends of the dialog are filled in by the scenario in which the step is used.
_WITHIN = f"""\
METHOD [next_url] SIP/2.0
{_VIA}
[routes]
From: <{{me}}>;tag=[pid]x[call_number]
To: {{peer}}
Call-ID: [call_id]
CSeq: [cseq] METHOD
Max-Forwards: 70
Contact: <sip:phone@[local_ip]:[local_port];transport=[transport]>
"""
_INFO = _WITHIN.replace("METHOD", "INFO")


def _proof(account: Account) -> str:
    """The answer to a challenge. SIPp looks for no field within it: a field holds the whole of it."""
    if account.password.startswith("[field"):
        return f"{account.password}\n"
    return f"{authentication(account.user, account.password)}\n"


def _invite(me: str, to: str, user: str, cseq: int, proof: str) -> str:
    return (
        f"INVITE {to} SIP/2.0\n{_VIA}\nFrom: <{me}>;tag=[pid]x[call_number]\nTo: <{to}>\n"
        f"Call-ID: [call_id]\nCSeq: {cseq} INVITE\nContact: <sip:{user}@[local_ip]:[local_port]>\n"
        f"Max-Forwards: 70\n{proof}"
    )


def _ack(me: str, to: str, cseq: int) -> str:
    """Of a final refusal: in the transaction of the INVITE, so without a new branch of its own."""
    return (
        f"ACK {to} SIP/2.0\n[last_Via:]\nFrom: <{me}>;tag=[pid]x[call_number]\n[last_To:]\n"
        f"Call-ID: [call_id]\nCSeq: {cseq} ACK\nMax-Forwards: 70\n{_NO_BODY}"
    )


def _in_dialog(method: str, me: str, to: str, cseq: str) -> str:
    return (
        f"{method} [next_url] SIP/2.0\n{_VIA}\n[routes]\nFrom: <{me}>;tag=[pid]x[call_number]\n"
        f"To: <{to}>[peer_tag_param]\nCall-ID: [call_id]\nCSeq: {cseq} {method}\nMax-Forwards: 70\n"
    )


def _reply(code: int, tail: str = _NO_BODY, *, once: bool = True) -> str:
    """To the last request. A 200 to an INVITE goes out again until its ACK comes (RFC 3261)."""
    headers = _reply_headers("[last_CSeq:]")
    if "Contact: " in tail:
        headers = headers.partition("Contact: ")[0]
    return _send(_status(code) + "[last_Via:]\n" + headers + tail, once=once)


def _reply_to_invite(code: int, tail: str = _NO_BODY) -> str:
    """To the INVITE, when something else came after it."""
    # The variable ends with a line break of its own.
    return _send(_status(code) + "[$vias]" + _reply_headers("CSeq: [$cseq] INVITE") + tail, once=True)


def _status(code: int) -> str:
    return f"SIP/2.0 {code} {_REASONS.get(code) or HTTPStatus(code).phrase}\n"


def _reply_headers(cseq: str) -> str:
    return (
        f"From:[$from]\nTo:[$to];tag=[pid]x[call_number]\n[last_Call-ID:]\n{cseq}\n[last_Record-Route:]\n"
        "Contact: <sip:phone@[local_ip]:[local_port];transport=[transport]>\n"
    )


def _receive_invite() -> str:
    """Keeps what later answers and requests of this side need."""
    line = "[^[:cntrl:]]*[[:cntrl:]]+"
    kept = {
        "from": ('search_in="hdr" header="From:"', ".*"),
        "to": ('search_in="hdr" header="To:"', ".*"),
        "to_uri": ('search_in="hdr" header="To:"', "sips?:[^&gt;;]*"),
        "cseq": ('search_in="hdr" header="CSeq:"', "[0-9]+"),
        "contact": ('search_in="hdr" header="Contact:"', _SIP_URI),
        "vias": ('search_in="msg"', f"(Via: {line})+"),
    }
    actions = "\n".join(
        f'<ereg regexp="{pattern}" {where} check_it="true" assign_to="{name}"/>'
        for name, (where, pattern) in kept.items()
    )
    # SIPp refuses a scenario in which a variable is set and not used.
    return (
        f'<recv request="INVITE" rrs="true"><action>\n{actions}\n</action></recv>\n'
        f'<Reference variables="{",".join(kept)}"/>'
    )


def _receive_answer() -> str:
    """The 200 to our INVITE; keeps where the requests after it go."""
    keep = (
        f'<ereg regexp="{_SIP_URI}" search_in="hdr" header="Contact:" check_it="true" assign_to="contact"/>'
    )
    return f'<recv response="200" rrs="true"><action>\n{keep}\n</action></recv>'


def _receive(
    kind: str, what: str, *, optional: bool = False, auth: bool = False, routes: bool = False
) -> str:
    flags = {"optional": optional, "auth": auth, "rrs": routes}
    chosen = "".join(f' {name}="true"' for name, on in flags.items() if on)
    return f'<recv {kind}="{what}"{chosen}/>'


def _send(message: str, *, once: bool = False) -> str:
    retransmit = "" if once else ' retrans="500"'
    return f"<send{retransmit}><![CDATA[\n\n{message}\n]]></send>"


def _scenario(*steps: str) -> str:
    body = "\n".join(steps)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="demo">\n{body}\n</scenario>\n'
