"""
Keeps objects: in a directory, or in S3.

    {"input": {"action": "put", "key": "greetings/1", "data": "<base64>"}}
    {"input": {"action": "get", "key": "greetings/1"}}

The other actions are ``hash``, ``delete`` and ``list``, which takes the beginning of a key.
``STORAGE_URL`` says where: a directory (by default /runpod-volume/storage) or s3://bucket/prefix,
with credentials and endpoint as boto3 finds them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any, Protocol

from _job import Refused, Schema, decoded, encoded, serve

MOST = 100_000_000  # bytes
ACTIONS = ("put", "get", "hash", "delete", "list")


def proper(key: str) -> bool:
    """Whether *key* stays where objects are."""
    return "\0" not in key and ".." not in key.split("/")


SCHEMA: Schema = {
    "action": {"type": str, "required": True, "constraints": lambda action: action in ACTIONS},
    "key": {
        "type": str,
        "required": False,
        "default": "",
        "constraints": lambda key: len(key) <= 500 and proper(key),
    },
    "data": {"type": str, "required": False, "default": ""},
}


class Shelf(Protocol):
    """Where objects are kept."""

    def put(self, key: str, data: bytes) -> None: ...
    def get(self, key: str) -> bytes | None: ...
    def delete(self, key: str) -> None: ...
    def list(self, beginning: str) -> list[str]: ...


class Folder:
    """Objects as files below a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, data: bytes) -> None:
        """All of it or nothing: a reader never sees half an object."""
        file = self._root / key
        file.parent.mkdir(parents=True, exist_ok=True)
        number, temporary = tempfile.mkstemp(dir=file.parent, prefix=".new-")
        with os.fdopen(number, "wb") as target:
            target.write(data)
        os.replace(temporary, file)

    def get(self, key: str) -> bytes | None:
        file = self._root / key
        return file.read_bytes() if file.is_file() else None

    def delete(self, key: str) -> None:
        (self._root / key).unlink(missing_ok=True)

    def list(self, beginning: str) -> list[str]:
        files = (file for file in self._root.rglob("*") if file.is_file())
        names = (file.relative_to(self._root).as_posix() for file in files)
        return sorted(
            name for name in names if name.startswith(beginning) and "/.new-" not in f"/{name}"
        )


class Bucket:
    """Objects in S3 or a service that speaks it."""

    def __init__(self, bucket: str, prefix: str) -> None:
        import boto3

        self._client = boto3.client("s3")
        self._bucket, self._prefix = bucket, f"{prefix.strip('/')}/".lstrip("/")

    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data)

    def get(self, key: str) -> bytes | None:
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
        except self._client.exceptions.NoSuchKey:
            return None
        data: bytes = answer["Body"].read()
        return data

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    def list(self, beginning: str) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + beginning
        )
        keys = (each["Key"] for page in pages for each in page.get("Contents", ()))
        return sorted(key.removeprefix(self._prefix) for key in keys)


def shelf(url: str) -> Shelf:
    """The one that *url* names."""
    if not url.startswith("s3://"):
        return Folder(Path(url))
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return Bucket(bucket, prefix)


def act(action: str, key: str, data: str) -> dict[str, Any]:
    """
    Do one thing with one object.

    Raises:
        Refused: There is no such object, or something is missing.
    """
    objects = shelf(os.environ.get("STORAGE_URL") or "/runpod-volume/storage")
    if action == "list":
        return {"keys": objects.list(key)}
    if not key.strip("/") or key.startswith("/"):
        raise Refused("key must name an object, such as greetings/1")
    if action == "put":
        content = decoded("data", data, MOST)
        objects.put(key, content)
        return described(key, content)
    found = objects.get(key)
    if found is None:
        raise Refused(f"there is no object {key}")
    if action == "delete":
        objects.delete(key)
    answer = described(key, found)
    return {**answer, "data": encoded(found)} if action == "get" else answer


def described(key: str, data: bytes) -> dict[str, Any]:
    """What every answer about one object says."""
    return {"key": key, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


if __name__ == "__main__":
    serve(act, SCHEMA)
