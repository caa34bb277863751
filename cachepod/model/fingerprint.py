"""
Fingerprint and key: what was observed and asked for, and the readable digest of it.

A fingerprint is a flat set of named inputs. Names with a colon are one of several of a kind:
``requirement:torch``, ``apt:ffmpeg``, ``tree:data``. Flat, because then explaining a key is
printing a table, and explaining a miss is comparing two of them line by line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cachepod.errors import UsageProblem
from cachepod.model.names import is_family

KEY_FORMAT = "1"


@dataclass(frozen=True)
class Difference:
    """One input on which two fingerprints disagree; None where one of them lacks it."""

    name: str
    ours: str | None
    theirs: str | None


@dataclass(frozen=True)
class Fingerprint:
    """
    Everything that decides what an environment contains.

    Args:
        family: Platform, Python ABI, CUDA and torch version, as
            ``cp310-linux_x86_64-cu126-torch2.7.0``: snapshots of one family share chunks and can
            stand in for one another in part.

        inputs: Input's name to its value, both plain text.
    """

    family: str
    inputs: Mapping[str, str]

    def __post_init__(self) -> None:
        if not is_family(self.family):
            raise UsageProblem(f"{self.family!r} cannot name a family of snapshots")

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of family and inputs, 64 hex digits."""
        canonical = json.dumps(
            [KEY_FORMAT, self.family, sorted(self.inputs.items())],
            ensure_ascii=True,
            separators=(",", ":"),
        )
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def key(self) -> str:
        """``<family>-<first 16 digits of the digest>``."""
        return f"{self.family}-{self.digest[:16]}"

    def differences(self, other: Fingerprint) -> list[Difference]:
        """Every input on which *other* disagrees, by name."""
        names = sorted(set(self.inputs) | set(other.inputs))
        return [
            Difference(name, self.inputs.get(name), other.inputs.get(name))
            for name in names
            if self.inputs.get(name) != other.inputs.get(name)
        ]

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return {"family": self.family, "inputs": dict(sorted(self.inputs.items()))}

    @classmethod
    def from_json(cls, value: object) -> Fingerprint:
        """
        Parse what :meth:`to_json` made.

        Raises:
            ValueError: It is something else.
        """
        if not isinstance(value, dict):
            raise ValueError("a fingerprint is an object")
        family, inputs = value.get("family"), value.get("inputs")
        if not isinstance(family, str) or not isinstance(inputs, dict):
            raise ValueError("a fingerprint has a family and inputs")
        if not all(isinstance(k, str) and isinstance(v, str) for k, v in inputs.items()):
            raise ValueError("a fingerprint's inputs are text")
        if not is_family(family):
            raise ValueError("a fingerprint's family is not a name")
        return cls(family, inputs)
