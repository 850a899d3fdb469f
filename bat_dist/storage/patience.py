"""Patience with storage: what fails for a moment is tried again, what is wrong for good is said at once."""

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, ParamSpec, TypeVar

from bat_dist.errors import RunError, UserError
from bat_dist.storage.provenance import without_passwords

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE_SECONDS = 600.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0  # seconds; each is twice the one before
FULL = (errno.ENOSPC, errno.EDQUOT)

_clock, _sleep = time.monotonic, time.sleep
_once: ContextVar[bool] = ContextVar("once", default=False)
_lost = False  # patience, with the last call of this process that waited; ends with the next that is answered

_TRANSIENT_ERRNOS = {
    *(errno.ESTALE, errno.EIO, errno.EAGAIN, errno.ETIMEDOUT),  # network file systems
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET),
    *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ENOTCONN, errno.ESHUTDOWN, errno.EPIPE),
}
_TRANSIENT_STATUS = {408, 409, 429, 500, 502, 503, 504}  # 409: two wrote at the same moment
_TRANSIENT_CODES = {"RequestTimeout", "SlowDown", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"}
_TRANSIENT_CLASSES = {  # by name: their packages may not be installed
    "aiohttp.client_exceptions.ClientError",
    "azure.core.exceptions.ServiceRequestError",
    "azure.core.exceptions.ServiceResponseError",
    "botocore.exceptions.ConnectionError",
    "botocore.exceptions.HTTPClientError",
    "botocore.exceptions.IncompleteReadError",
    "botocore.parsers.ResponseParserError",
    "google.auth.exceptions.TransportError",
    "httpx.TransportError",
    "httpx2.TransportError",
    "requests.exceptions.ConnectionError",
    "requests.exceptions.Timeout",
    "urllib3.exceptions.HTTPError",
}
_FULL_STATUS, _FULL_CODES = 507, {"QuotaExceeded", "XMinioStorageFull"}
_REFUSED_STATUS, _REFUSED_CODES = (401, 403), {"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
_FOR_THE_CALLER = (404, 412, 416)  # not there, there already, no such bytes


class ServerAnswer(NamedTuple):
    """What a server said: HTTP status, code and message; None and empty if it said nothing."""

    status: int | None = None
    code: str = ""
    message: str = ""


def patiently(place: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return `call(*args, **kwargs)`, tried again and again while `place`, named in messages, cannot be reached.

    The call must be one that may be made twice. Raises RunError after PATIENCE_SECONDS; at once UserError if access is
    refused or there is no such bucket, and OSError(ENOSPC) if the storage is full; any other error as it is.
    """
    global _lost
    began, since, pause = None, "", FIRST_PAUSE
    while True:
        try:
            result = call(*args, **kwargs)
        except Exception as error:
            if not is_transient(error):
                if isinstance(error, FileNotFoundError) or answer_of(error).status:
                    _lost = False  # a "no" is an answer
                raise _named(error, place)  # noqa: B904  (it has its cause, or is the error itself)
            now = _clock()
            if began is None:
                began, since = now, time.strftime("%H:%M:%S")
            reason = without_passwords(f"{type(error).__name__}: {error}".removesuffix(": "))
            if _once.get() or _lost or now + pause - began > PATIENCE_SECONDS:
                _lost = _lost or not _once.get()
                raise RunError(
                    f"{place} cannot be reached since {since} ({reason}): finished work is kept; the same command goes "
                    "on from there"
                ) from error
            log.warning("%s cannot be reached since %s: trying again in %.0f s (%s)", place, since, pause, reason)
            _sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            if began is not None:
                log.info("%s answers again, after %.0f s", place, _clock() - began)
            _lost = False
            return result


@contextmanager
def tried_once() -> Iterator[None]:
    """Try nothing again in this block and thread: for signs of life, and for what is done on the way out."""
    token = _once.set(True)
    try:
        yield
    finally:
        _once.reset(token)


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later without anybody's doing."""
    if isinstance(error, RunError | UserError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
        return False
    answer = answer_of(error)
    if answer.status is not None:
        return answer.status in _TRANSIENT_STATUS or answer.code in _TRANSIENT_CODES
    if isinstance(error, ConnectionError | TimeoutError) or _classes(error) & _TRANSIENT_CLASSES:
        return True
    return isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS


def answer_of(error: BaseException) -> ServerAnswer:
    """What the server said, as botocore (and s3fs, which makes it the cause), aiohttp, gcsfs and httpx tell it."""
    for teller in (error, error.__cause__):
        response = getattr(teller, "response", None)
        if isinstance(response, dict) and "Error" in response:
            said, status = response["Error"], response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return ServerAnswer(status or 0, str(said.get("Code", "")), str(said.get("Message", "")))
        for owner, name in ((teller, "status"), (teller, "code"), (response, "status_code")):
            if isinstance(status := getattr(owner, name, None), int):
                return ServerAnswer(status, "", str(teller))
    return ServerAnswer()


def _named(error: Exception, place: str) -> Exception:
    """The error to be raised for one that will not pass: with the place, and what to do."""
    answer, text = answer_of(error), without_passwords(str(error))
    if answer.status == _FULL_STATUS or answer.code in _FULL_CODES:
        return _caused(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place), error)
    if isinstance(error, OSError) and error.errno in FULL:
        error.filename = error.filename or place
        return error
    if answer.code == "NoSuchBucket":
        return _caused(UserError(f"{place}: there is no such bucket: make it first, or name another"), error)
    if answer.status in _REFUSED_STATUS or answer.code in _REFUSED_CODES:
        said = without_passwords(answer.message) or text
        return _caused(UserError(f"{place}: access is refused ({said}): check credentials and permissions"), error)
    if answer.status is not None and 300 <= answer.status < 500 and answer.status not in _FOR_THE_CALLER:
        return _caused(UserError(f"{place}: {answer.code}: {without_passwords(answer.message) or text}"), error)
    if isinstance(error, PermissionError):
        return _caused(UserError(f"{place}: {error.strerror or text}: name another folder, or change its owner"), error)
    if "botocore.exceptions.BotoCoreError" in _classes(error):  # no credentials, no such profile, no valid name, ...
        return _caused(UserError(f"{place}: {text}"), error)
    return error


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def _classes(error: BaseException) -> set[str]:
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
