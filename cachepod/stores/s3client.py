"""
The client of a S3 service: made when it is first needed, and anew in a forked child.

It is botocore's, which boto3 is made of: the same credentials, files and variables, and half the
time to import. It never tries again by itself: that is for whoever knows what may be repeated.
"""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace
from typing import Any

from cachepod import __version__
from cachepod.errors import StoreUnreachable
from cachepod.stores.s3errors import trouble
from cachepod.stores.s3url import S3Location

_CONNECTIONS = 96  # that are kept; more may be open while more are in use
_DEFAULT_REGION = "us-east-1"


class Service:
    """Requests to one bucket. Threads may share an instance."""

    def __init__(self, location: S3Location) -> None:
        self.location = location
        self._lock = threading.Lock()
        self._pid = 0
        self._client: Any = None

    @property
    def client(self) -> Any:
        """botocore's client; the first call of a process imports botocore and makes it."""
        if self._pid != os.getpid():
            if self._pid:
                self._lock = threading.Lock()  # another thread of the parent may have held it
            with self._lock:
                if self._pid != os.getpid():
                    self._client = _make(self.location)
                    self._pid = os.getpid()
        return self._client

    def call(self, operation: str, name: str | None, **parameters: Any) -> Any:
        """
        Send one request.

        Args:
            operation: A method of the client.

            name: The object whose absence is ObjectMissing; None if there is no such.

        Raises:
            CachepodError: What went wrong, in words; :class:`.s3errors.Refusal` if the service
                answered.
        """
        try:
            method = getattr(self.client, operation)
            return method(Bucket=self.location.bucket, **parameters)
        except Exception as error:
            raise self.trouble(error, name) from error

    def trouble(self, error: Exception, name: str | None) -> Exception:
        """What *error* means; what is no trouble of the service's is given back as it is."""
        return trouble(error, self.location, name) or error

    def unreachable(self, why: str, *, hint: str = "", transient: bool = False) -> StoreUnreachable:
        """An error about this service."""
        return StoreUnreachable(self.location.url, why, hint=hint, transient=transient)


def _make(location: S3Location) -> Any:
    import boto3.session
    from botocore.config import Config

    checksums: Any = "when_supported" if location.checksums else "when_required"
    s3: Any = None if location.addressing == "auto" else {"addressing_style": location.addressing}
    session = boto3.session.Session(profile_name=location.profile)
    region = location.region or session.region_name
    if region is None and location.endpoint:
        region = _DEFAULT_REGION  # the signature needs one, and most services look at none
    client = session.client(
        "s3",
        region_name=region,
        endpoint_url=location.endpoint,
        config=Config(
            connect_timeout=location.connect_timeout,
            read_timeout=location.timeout,
            retries={"total_max_attempts": 1},
            max_pool_connections=_CONNECTIONS,
            tcp_keepalive=True,
            s3=s3,
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
            user_agent_extra=f"cachepod/{__version__}",
        ),
    )
    if location.endpoint:
        client.meta.events.register("before-call.s3.HeadBucket", _know_no_region)
    return client


def _know_no_region(**_: object) -> Any:
    """
    Answer botocore's own question where a bucket lies that a service of one endpoint redirects
    from; asked there, it would be redirected as well, and ask again for ever.
    """
    return SimpleNamespace(status_code=200), {"ResponseMetadata": {"HTTPHeaders": {}}}
