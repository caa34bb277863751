"""What the object of a lease says; the head of lease.py draws it."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from enum import Enum
from typing import Any

LIMIT = 4096  # bytes of a lease
_TEXT = 255  # characters of a host or a pod


class State(str, Enum):
    """What a holder says of itself."""

    BUILDING = "building"
    FAILED = "failed"
    FREE = "free"


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, for people: nothing is decided by it."""

    host: str
    pid: int
    pod: str = ""

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        return cls(platform.node(), os.getpid(), os.environ.get("RUNPOD_POD_ID", ""))

    def __str__(self) -> str:
        host = self.host or "an unknown host"
        return f"{host} (pod {self.pod})" if self.pod and self.pod != self.host else host


@dataclass(frozen=True)
class Claim:
    """What the object of a lease says; see the head of lease.py."""

    holder: Holder
    token: str
    beat: int = 0
    elapsed: float = 0.0
    state: State = State.BUILDING
    failures: int = 0

    def encode(self) -> bytes:
        """As it is stored."""
        document = {
            "holder": {"host": self.holder.host, "pid": self.holder.pid, "pod": self.holder.pod},
            "token": self.token,
            "beat": self.beat,
            "elapsed": round(self.elapsed, 1),
            "state": self.state.value,
            "failures": self.failures,
        }
        return json.dumps(document).encode()

    @classmethod
    def decode(cls, data: bytes) -> Claim | None:
        """What *data* says; None if it is no claim, for what lies in a store is not trusted."""
        try:
            document: Any = json.loads(data)
            holder = document["holder"]
            elapsed = float(document["elapsed"])
            return cls(
                Holder(
                    str(holder["host"])[:_TEXT],
                    int(holder["pid"]),
                    str(holder.get("pod", ""))[:_TEXT],
                ),
                str(document["token"])[:_TEXT],
                int(document["beat"]),
                elapsed if 0 <= elapsed < 1e9 else 0.0,
                State(document["state"]),
                max(0, int(document["failures"])),
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return None
