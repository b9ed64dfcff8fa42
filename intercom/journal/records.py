"""What is kept: the kinds of records, and what each says. Rule: no secret and no text of the settings."""

from dataclasses import dataclass, field, fields

from intercom.core.actions import RecordAccess, RecordCall, RecordPress, RecordRing


@dataclass(frozen=True, slots=True)
class RecordService:
    """The service started or stopped; `reason` is empty where somebody asked for it."""

    what: str
    version: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """The settings a start was made with. Kept as a keyed digest, and only when they have changed."""

    text: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RecordGap:
    """Records could not be written in time.

    Attributes:
        since: when the first of them happened, in ISO 8601.
        until: when records could be written again.
        late: how many were kept in memory, and follow.
        lost: how many were not.
        reason: what was wrong.
    """

    since: str
    until: str
    late: int
    lost: int
    reason: str


@dataclass(frozen=True, slots=True)
class RecordBegun:
    """A new chain begins; `reason` says what is wrong with the one before, `aside` where that is now."""

    reason: str
    aside: str


Record = (
    RecordCall
    | RecordRing
    | RecordAccess
    | RecordPress
    | RecordService
    | RecordSettings
    | RecordGap
    | RecordBegun
)

KINDS: dict[type[Record], str] = {
    RecordCall: "call",
    RecordRing: "ring",
    RecordAccess: "access",
    RecordPress: "press",
    RecordService: "service",
    RecordSettings: "settings",
    RecordGap: "gap",
    RecordBegun: "begun",
}
SURE = {"access", "service", "settings", "gap", "begun"}
"""Kinds that the disk has before anything else is written; the others outlive a crash, but the last of them
perhaps not a power cut."""

COLUMNS = list(
    dict.fromkeys(
        ["id", "at", "clock", "kind"]
        + [part.name for kind in KINDS if kind is not RecordSettings for part in fields(kind)]
        + ["digest"]
    )
)
"""The keys that a record may have, in the order of a table of all kinds."""
