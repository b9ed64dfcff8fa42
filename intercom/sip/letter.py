"""What becomes of a message that comes in: pure judgement over its headers and body.

Rule: whatever comes in is answered with a status (RFC 3428 section 7), and at most one bounded line of text
goes on to the core.
"""

LONGEST_BYTES = 1000
ACCEPTED, FORBIDDEN, TOO_LARGE, UNSUPPORTED, BAD = 200, 403, 413, 415, 400


def judge(content_type: str, body: str, *, permitted: bool) -> int:
    """Return the SIP status that a message is answered with; only 200 lets it in.

    Args:
        content_type: without parameters, as `type/subtype`.
        body: as text; what is no UTF-8 is lone surrogates in it.
        permitted: whether the sender may write to the station.
    """
    if not permitted:
        return FORBIDDEN
    if content_type.lower() != "text/plain":
        return UNSUPPORTED
    try:
        return TOO_LARGE if len(body.encode()) > LONGEST_BYTES else ACCEPTED
    except UnicodeEncodeError:
        return BAD
