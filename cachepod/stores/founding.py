"""
What makes a place a store: ``cachepod.json``, which says the store's format, and a tag that tells
backup programs to look away. Every kind of store has the same two objects.
"""

from __future__ import annotations

import json

from cachepod.errors import StoreUnreachable
from cachepod.model.names import FORMAT_OBJECT, STORE_FORMAT

FORMAT_LIMIT = 64 * 1024
FORMAT_DOCUMENT = (json.dumps({"store": "cachepod", "format": STORE_FORMAT}) + "\n").encode()
TAG_NAME = "CACHEDIR.TAG"
TAG = b"""Signature: 8a477f597d28d172789f06886806bc55
# This directory holds snapshots of environments, made by cachepod.
# What this file means: https://bford.info/cachedir/
"""


def format_version(data: bytes) -> int | None:
    """The format that the bytes of a ``cachepod.json`` name; None if they name none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    version = value.get("format") if isinstance(value, dict) else None
    return version if type(version) is int and version >= 1 else None


def unreadable_format(url: str, path: str) -> StoreUnreachable:
    """The error for a store at *url* whose format object *path* names no format."""
    return StoreUnreachable(
        url,
        f"its {FORMAT_OBJECT} does not say which format the store has",
        hint=f"delete {path} if this is a store of cachepod's and the next publish writes it "
        "anew, or give another --store",
    )
