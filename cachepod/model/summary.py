"""What a listing shows of a snapshot: who made it, of what, and how large it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cachepod.errors import UsageProblem
from cachepod.model.fingerprint import Fingerprint
from cachepod.model.names import check_tree_name
from cachepod.model.surroundings import Surroundings

_YEAR_10000 = 253_402_300_800


@dataclass(frozen=True)
class TreeInfo:
    """
    A tree of the snapshot.

    Args:
        name: Unique in the snapshot.

        root: The directory it was captured from.

        around: What belongs to it and lies outside of it; None for nothing.
    """

    name: str
    root: str
    around: Surroundings | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        told: dict[str, Any] = {"name": self.name, "root": self.root}
        if self.around is not None:
            told["around"] = self.around.to_json()
        return told

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TreeInfo:
        """
        Parse what :meth:`to_json` made.

        Raises:
            ValueError, KeyError, TypeError, UsageProblem: It is something else.
        """
        around = value.get("around")
        return cls(
            check_tree_name(str(value["name"])),
            str(value["root"]),
            None if around is None else Surroundings.from_json(around),
        )


@dataclass(frozen=True)
class Distribution:
    """An installed distribution; *name* in normalised form."""

    name: str
    version: str


@dataclass(frozen=True)
class Summary:
    """
    What a listing shows of a snapshot.

    Args:
        key: The key it was published under.

        fingerprint: The inputs that the key stands for.

        trees: In the order of their roots among the entries.

        distributions: In the order that ``Entries.owner`` counts them.

        creator: Host, version and such of the publisher; for people only.

        created: Seconds since 1970 by the publisher's clock; for people only.

        files: Regular files and hard links.

        size: Plain bytes of the regular files, holes included.

        stored: Bytes of the chunks it needs in the store, shared ones included.
    """

    key: str
    fingerprint: Fingerprint
    trees: tuple[TreeInfo, ...]
    distributions: tuple[Distribution, ...]
    creator: Mapping[str, str]
    created: float
    files: int
    size: int
    stored: int

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return {
            "key": self.key,
            "fingerprint": self.fingerprint.to_json(),
            "trees": [tree.to_json() for tree in self.trees],
            "distributions": [[dist.name, dist.version] for dist in self.distributions],
            "creator": dict(self.creator),
            "created": self.created,
            "files": self.files,
            "size": self.size,
            "stored": self.stored,
        }

    @classmethod
    def from_json(cls, value: object) -> Summary:
        """
        Parse what :meth:`to_json` made.

        Raises:
            ValueError: It is something else.
        """
        try:
            if not isinstance(value, dict):
                raise ValueError("a summary is an object")
            return cls(
                key=str(value["key"]),
                fingerprint=Fingerprint.from_json(value["fingerprint"]),
                trees=tuple(TreeInfo.from_json(tree) for tree in value["trees"]),
                distributions=tuple(
                    Distribution(str(name), str(version))
                    for name, version in value["distributions"]
                ),
                creator={str(name): str(text) for name, text in value["creator"].items()},
                created=_time(value["created"]),
                files=_amount(value["files"]),
                size=_amount(value["size"]),
                stored=_amount(value["stored"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a summary lacks {error}") from error
        except UsageProblem as error:
            raise ValueError(error.message) from error


def _amount(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("a summary has an amount that is none")
    return value


def _time(value: object) -> float:
    # A comparison with NaN is false too.
    if not isinstance(value, int | float) or not 0 <= value < _YEAR_10000:
        raise ValueError("a summary has a time that is none")
    return float(value)
