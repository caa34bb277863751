"""
Whether a S3 service honours If-None-Match, without which no create is exclusive.

What was found out is remembered in the store, for each endpoint, in ``probes/<16 hex digits>``::

    {"endpoint": "https://s3.example.com", "if_none_match": true}

``null`` in place of the truth value is a probe that did not come to its end. A probe writes this
object twice under the condition that there is none of its name: a service that lets the second
write pass does not honour it.
"""

from __future__ import annotations

import hashlib
import json
import threading

from cachepod.errors import CachepodError, CorruptObject, ObjectMissing
from cachepod.model.names import PROBES
from cachepod.stores.s3client import Service
from cachepod.stores.s3errors import Refusal
from cachepod.stores.s3read import read_whole

_LIMIT = 4096


def is_taken(error: CachepodError) -> bool:
    """Whether the service says that there is an object of this name already."""
    return isinstance(error, Refusal) and (
        error.status == 412 or error.code in ("PreconditionFailed", "ObjectAlreadyExists")
    )


class Condition:
    """
    The answer, found out once.

    Args:
        service: Whose.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._honoured = service.location.conditional
        self._lock = threading.Lock()
        digest = hashlib.sha256(service.location.where.encode()).hexdigest()[:16]
        self._name = f"{PROBES}/{digest}"
        self._key = service.location.prefix + self._name

    @property
    def honoured(self) -> bool:
        """
        Whether If-None-Match is honoured; the first call asks the store, or the service itself.

        Raises:
            StoreUnreachable, SpaceExhausted: It could not be found out.
        """
        with self._lock:
            if self._honoured is None:
                remembered = self._remembered()
                self._honoured = self._probe() if remembered is None else remembered
            return self._honoured

    def refused(self) -> None:
        """The service turned out not to know it."""
        self._honoured = False

    def probe(self) -> bool:
        """Find it out anew, whatever is remembered, and remember it."""
        with self._lock:
            self._service.call("delete_object", None, Key=self._key)
            self._honoured = self._probe()
            return self._honoured

    def _remembered(self) -> bool | None:
        try:
            value = json.loads(read_whole(self._service, self._key, self._name, _LIMIT))
        except (ObjectMissing, CorruptObject, ValueError, RecursionError):
            return None
        found = value.get("if_none_match") if isinstance(value, dict) else None
        return found if isinstance(found, bool) else None

    def _probe(self) -> bool:
        honoured = any(self._is_refused() for _ in range(2))
        self._write(honoured)
        return honoured

    def _is_refused(self) -> bool:
        try:
            self._write(None, IfNoneMatch="*")
        except CachepodError as error:
            if is_taken(error):
                return True
            if isinstance(error, Refusal) and (error.unsupported or error.status == 400):
                return False
            raise
        return False

    def _write(self, honoured: bool | None, **condition: str) -> None:
        document = {"endpoint": self._service.location.where, "if_none_match": honoured}
        body = (json.dumps(document) + "\n").encode()
        self._service.call("put_object", None, Key=self._key, Body=body, **condition)
