"""What goes wrong with a S3 service, in words: one sentence, and what to do next."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from cachepod.errors import CachepodError, ObjectMissing, SpaceExhausted, StoreUnreachable
from cachepod.stores.s3url import S3Location

_PERMISSIONS = (
    "allow s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject and "
    "s3:AbortMultipartUpload below the prefix"
)
_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with profile=NAME in the "
    "store's URL"
)
_REGION = "add region=NAME to the store's URL"
_ENDPOINT = "check the endpoint in the store's URL"


@dataclass(frozen=True)
class Meaning:
    """What an error code of the service means."""

    why: str
    hint: str = ""
    transient: bool = False


_OVERLOADED = Meaning("the service is overloaded", "try again later", transient=True)
_INTERNAL = Meaning("the service has an internal error", "try again later", transient=True)
_EXPIRED = Meaning("the credentials have expired", "get new ones, and start again")
_TOKEN = Meaning("the session token is not valid", "get new credentials, and start again")
_ALTERED = Meaning("what was sent did not arrive as it was sent", transient=True)
_DENIED = Meaning("access is denied", _PERMISSIONS)
_UNKNOWN_KEY = Meaning(
    "the service does not know the access key",
    "check AWS_ACCESS_KEY_ID or the profile: a key of one service means nothing to another",
)
_ELSEWHERE = Meaning("the bucket lies in another region", _REGION)
_TOO_LARGE = Meaning(
    "the service refuses a request of this size", "give a smaller part_size in the store's URL"
)
_CONFLICT = Meaning("another request for the same object is being carried out", transient=True)
_UNSUPPORTED = Meaning("the service cannot do this", "doctor tells what it can do")
_NO_BUCKET = "check the bucket's name, the endpoint and the region; cachepod makes no bucket"

MEANINGS: Mapping[str, Meaning] = {
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "Forbidden": _DENIED,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "BadDigest": _ALTERED,
    "ConditionalRequestConflict": _CONFLICT,
    "EntityTooLarge": _TOO_LARGE,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "IllegalLocationConstraintException": _ELSEWHERE,
    "IncompleteBody": _ALTERED,
    "InternalError": _INTERNAL,
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "InvalidDigest": _ALTERED,
    "InvalidToken": _TOKEN,
    "MethodNotAllowed": _UNSUPPORTED,
    "NotImplemented": _UNSUPPORTED,
    "OperationAborted": _CONFLICT,
    "PermanentRedirect": _ELSEWHERE,
    "RequestLimitExceeded": _OVERLOADED,
    "RequestTimeout": Meaning("the service waited too long for the request", transient=True),
    "ServiceUnavailable": _OVERLOADED,
    "SignatureDoesNotMatch": Meaning(
        "the secret key does not fit the access key: the signature does not match",
        "check AWS_SECRET_ACCESS_KEY or the profile, and the region in the store's URL",
    ),
    "SlowDown": _OVERLOADED,
    "TemporaryRedirect": _ELSEWHERE,
    "Throttling": _OVERLOADED,
    "ThrottlingException": _OVERLOADED,
    "TokenRefreshRequired": _EXPIRED,
    "TooManyRequests": _OVERLOADED,
    "XAmzContentChecksumMismatch": _ALTERED,
    "XAmzContentSHA256Mismatch": _ALTERED,
}
STATUSES: Mapping[int, Meaning] = {
    301: _ELSEWHERE,
    307: _ELSEWHERE,
    401: _DENIED,
    403: _DENIED,
    405: _UNSUPPORTED,
    408: Meaning("the service waited too long for the request", transient=True),
    413: _TOO_LARGE,
    429: _OVERLOADED,
    500: _INTERNAL,
    501: _UNSUPPORTED,
    502: Meaning("a proxy in front of the service got no answer from it", transient=True),
    503: _OVERLOADED,
    504: Meaning("a proxy in front of the service gave up waiting", transient=True),
    524: Meaning("a proxy in front of the service gave up waiting", transient=True),
}
_CLOCK = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_FULL = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "StorageFull"})
_ABSENT = frozenset({"NoSuchKey", "NotFound"})


class Refusal(StoreUnreachable):
    """
    The service answered, and not with what was asked for.

    Args:
        status: Of HTTP.

        code: The service's own, or the status where it gave none.
    """

    def __init__(
        self,
        url: str,
        why: str,
        *,
        status: int,
        code: str,
        hint: str = "",
        transient: bool = False,
    ) -> None:
        super().__init__(url, why, hint=hint, transient=transient)
        self.status = status
        self.code = code

    @property
    def unsupported(self) -> bool:
        """Whether the service says that it has no such operation or header."""
        return self.status in (405, 501) or self.code == "NotImplemented"


def trouble(error: Exception, location: S3Location, name: str | None) -> CachepodError | None:
    """
    What *error* means; None if neither the service nor the way to it is at fault.

    Args:
        error: Of botocore, or of the connection below it.

        name: The object that was asked for; None where its absence is no object's absence.
    """
    from botocore import exceptions
    from urllib3.exceptions import HTTPError

    if isinstance(error, exceptions.ClientError):
        return _refusal(error.response, location, name)
    broken = exceptions.HTTPClientError | exceptions.ConnectionError
    if isinstance(error, broken | HTTPError | HTTPException | OSError):
        return _network(error, location)
    if isinstance(error, exceptions.IncompleteReadError | exceptions.FlexibleChecksumError):
        return StoreUnreachable(
            location.url, f"an answer is not whole: {_clean(error)}", transient=True
        )
    kinds: list[tuple[tuple[type[Exception], ...], str, str]] = [
        ((exceptions.NoCredentialsError,), "there are no credentials", _CREDENTIALS),
        (
            (exceptions.PartialCredentialsError,),
            "the credentials are not complete",
            _CREDENTIALS,
        ),
        (
            (exceptions.ProfileNotFound,),
            f"there is no profile {_clean(getattr(error, 'kwargs', {}).get('profile', ''))}",
            "name one of the AWS configuration files, or set AWS_CONFIG_FILE",
        ),
        (
            (exceptions.CredentialRetrievalError, exceptions.TokenRetrievalError),
            f"credentials cannot be had: {_clean(error)}",
            _CREDENTIALS,
        ),
        (
            (exceptions.ConfigParseError, exceptions.ConfigNotFound),
            f"the AWS configuration cannot be read: {_clean(error)}",
            "mend the file, or name another with AWS_CONFIG_FILE",
        ),
        (
            (exceptions.InvalidRegionError,),
            f"the region {_clean(getattr(error, 'kwargs', {}).get('region_name', ''))} cannot be",
            _REGION,
        ),
    ]
    for types, why, hint in kinds:
        if isinstance(error, types):
            return StoreUnreachable(location.url, why, hint=hint)
    from botocore.parsers import ResponseParserError

    if isinstance(error, ResponseParserError):
        return StoreUnreachable(
            location.url, f"{location.where} does not answer as a S3 service does", hint=_ENDPOINT
        )
    if isinstance(error, exceptions.BotoCoreError):
        return StoreUnreachable(location.url, f"{type(error).__name__}: {_clean(error)}")
    return None


def _refusal(response: Mapping[str, Any], location: S3Location, name: str | None) -> CachepodError:
    found = response.get("Error", {})
    code = str(found.get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = _clean(found.get("Message", ""))
    if code == "NoSuchBucket":
        return Refusal(
            location.url,
            f"there is no bucket {location.bucket} at {location.where}",
            status=status,
            code=code,
            hint=_NO_BUCKET,
        )
    if name is not None and (code in _ABSENT or (status == 404 and code in ("", "404"))):
        return ObjectMissing(name)
    if status == 507 or code in _FULL:
        return SpaceExhausted(
            location.url,
            f"the service has no space left ({_label(status, code)})",
            hint="prune the store or enlarge its volume",
        )
    if code in _CLOCK:
        return Refusal(
            location.url,
            f"this machine's clock {_skew(response)}",
            status=status,
            code=code,
            hint="set the clock; the service takes at most 15 minutes of difference",
        )
    meaning = MEANINGS.get(code) or STATUSES.get(status)
    if meaning is None:
        transient = status >= 500
        hint = "try again later" if transient else _ENDPOINT
        if status == 400 and location.checksums:
            hint = "leave checksums=on out of the store's URL: many services know none of them"
        return Refusal(
            location.url,
            f"the service refused ({_label(status, code)})" + (f": {said}" if said else ""),
            status=status,
            code=code,
            hint=hint,
            transient=transient,
        )
    why = f"{meaning.why} ({_label(status, code)})"
    if meaning is _ELSEWHERE and (region := _region(response)):
        return Refusal(
            location.url,
            f"the bucket lies in the region {region} ({_label(status, code)})",
            status=status,
            code=code,
            hint=f"add region={region} to the store's URL",
        )
    if meaning is _DENIED and said and said.lower().rstrip(".") not in ("access denied", code):
        why += f": {said}"
    return Refusal(
        location.url,
        why,
        status=status,
        code=code,
        hint=meaning.hint,
        transient=meaning.transient,
    )


def _network(error: Exception, location: S3Location) -> StoreUnreachable:
    from botocore import exceptions

    where = location.where
    chain = list(_chain(error))
    text = " ".join(str(each) for each in chain)
    hint, transient = _ENDPOINT, True
    if isinstance(error, exceptions.SSLError):
        if "WRONG_VERSION_NUMBER" in text or "wrong version number" in text:
            why, transient = f"{where} does not speak TLS", False
            hint = "write http:// in the endpoint if that is meant"
        elif "certificate" in text.lower():
            why, transient = f"the certificate of {where} is not trusted: {_clean(error)}", False
            hint = "set AWS_CA_BUNDLE to the file of the authority that signed it"
        else:
            why = f"the encrypted connection to {where} broke off"
    elif isinstance(error, exceptions.ProxyConnectionError):
        why, hint = "the HTTP proxy cannot be reached", "check HTTPS_PROXY and NO_PROXY"
    elif any(isinstance(each, socket.gaierror) for each in chain) or "resolve" in text:
        host = urlsplit(location.endpoint).hostname if location.endpoint else "AWS"
        why = f"the name {host} cannot be resolved"
        hint = "check the endpoint in the store's URL, and the network"
    elif any(isinstance(each, ConnectionRefusedError) for each in chain) or "refused" in text:
        why = f"nothing listens at {where}"
    elif isinstance(error, exceptions.ConnectTimeoutError):
        why = f"{where} cannot be reached within {location.connect_timeout:.0f} s"
        hint = "check the endpoint in the store's URL, and the network"
    elif isinstance(error, exceptions.ReadTimeoutError | TimeoutError):
        why = f"{where} did not answer within {location.timeout:.0f} s"
        hint = "try again later, or give a longer timeout in the store's URL"
    elif isinstance(error, exceptions.EndpointConnectionError):
        why = f"{where} cannot be reached"
    else:
        why, hint = f"the connection to {where} broke off", "try again later"
    return StoreUnreachable(location.url, why, hint=hint, transient=transient)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """*error* and what it came of, botocore's and urllib3's own ways of saying so included."""
    pending: list[object] = [error]
    seen: set[int] = set()
    while pending:
        each = pending.pop()
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        kwargs = getattr(each, "kwargs", None)
        inner = kwargs.get("error") if isinstance(kwargs, dict) else None
        pending += [inner, each.__cause__, each.__context__, getattr(each, "reason", None)]


def _label(status: int, code: str) -> str:
    return f"{status} {code}" if code and code != str(status) else str(status)


def _region(response: Mapping[str, Any]) -> str:
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = response.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region", "")
    return region if re.fullmatch(r"[A-Za-z0-9-]{1,40}", str(region)) else ""


def service_time(response: Mapping[str, Any]) -> float | None:
    """When the service answered, by its own clock, in seconds since 1970; None if it is silent."""
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None


def _skew(response: Mapping[str, Any]) -> str:
    theirs = service_time(response)
    off = None if theirs is None else time.time() - theirs
    if off is None or abs(off) < 60:
        return "is too far off the service's"
    minutes = round(abs(off) / 60)
    return f"is {minutes} minutes {'ahead of' if off > 0 else 'behind'} the service's"


def _clean(text: object) -> str:
    """*text* of somebody else, as a part of one line."""
    line = " ".join(str(text).split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:200]
