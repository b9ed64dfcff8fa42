"""What every callback of pjsua2 goes through, and how its errors are said."""

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import pjsua2 as pj

log = logging.getLogger(__name__)

Method = TypeVar("Method", bound=Callable[..., None])


def guarded(method: Method) -> Method:
    """Let no exception escape a callback: it would be lost, keep the call alive and abort at exit."""

    @functools.wraps(method)
    def guard(self: Any, prm: Any) -> None:
        try:
            method(self, prm)
        except Exception:
            log.exception("in %s", method.__qualname__)
            self.abandon()

    return guard  # type: ignore[return-value]


def words(error: Exception) -> str:
    """An error of pjsip or of the system, for a person."""
    return f"{error.reason} ({error.status})" if isinstance(error, pj.Error) else str(error)
