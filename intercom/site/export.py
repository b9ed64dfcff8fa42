"""What an export of a site looks like; it may come from another version, or from somebody's editor.

Rule: here is said of what kind everything is, with nothing missing and nothing more; whether it makes sense
is for `Users` to say, as of every change.
"""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from intercom.site import forms
from intercom.site.settings import Digest, Transport


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class User(_Part):
    """A user; without `ha1` when the export has no secrets."""

    name: str
    display: str
    digest: Digest
    ha1: Annotated[str, AfterValidator(forms.ha1)] | None = None
    transport: Transport
    busy: str
    unanswered: str
    away: str
    seconds: int
    may_call: list[str]

    @model_validator(mode="after")
    def _as_long_as_its_digest(self) -> Self:
        if self.ha1 is not None and len(self.ha1) != (32 if self.digest == "MD5" else 64):
            raise ValueError(f"ha1 is no {self.digest}")
        return self


class Group(_Part):
    """A group."""

    name: str
    display: str
    serial: bool
    seconds: int
    members: list[str]


class Redirect(_Part):
    """Where else a name is to be called."""

    name: str
    uris: list[str]
    permanent: bool


class Gateway(_Part):
    """A trunk; without `password` when the export has no secrets."""

    name: str
    uri: str
    priority: int
    username: str
    password: str | None = None
    registers: bool
    ranges: list[str]


class Number(_Part):
    """A number of ours, and whom it rings."""

    number: str
    target: str


class Export(_Part):
    """The whole file, but for the site's key."""

    domain: str
    users: list[User]
    groups: list[Group]
    redirects: list[Redirect]
    gateways: list[Gateway]
    numbers: list[Number]
