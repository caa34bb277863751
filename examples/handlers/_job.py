"""What the handlers beside this file share: input is checked, and a refusal is an answer."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import runpod
from runpod.serverless.utils.rp_validator import validate

Schema = dict[str, dict[str, Any]]


class Refused(Exception):
    """The job cannot be done as it was asked for; the message tells its sender why."""


def decoded(name: str, text: str, most: int) -> bytes:
    """
    The bytes that *text* holds in base64.

    Raises:
        Refused: It holds none, or more than *most*.
    """
    if len(text) > most * 4 // 3 + 4:
        raise Refused(f"{name} is larger than the {most // 1_000_000} MB that this worker takes")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Refused(f"{name} is not base64: {error}") from None
    if not data:
        raise Refused(f"{name} is empty")
    return data


def encoded(data: bytes) -> str:
    """*data* in base64."""
    return base64.b64encode(data).decode("ascii")


def handler_of(work: Callable[..., dict[str, Any]], schema: Schema) -> Callable[..., Any]:
    """
    A handler as the SDK wants it: takes a job, returns its output, or a dictionary with ``error``.

    Any other exception of *work* is for the SDK, which sends its traceback.
    """

    # The SDK asks for constraints also of what has the wrong type, where they may fail.
    types = {
        name: {rule: value for rule, value in rules.items() if rule != "constraints"}
        for name, rules in schema.items()
    }

    def handler(job: dict[str, Any]) -> dict[str, Any]:
        checked = validate(job["input"], types)
        if "errors" in checked:
            return {"error": "; ".join(checked["errors"])}
        given = checked["validated_input"]
        for name, rules in schema.items():
            if "constraints" in rules and not rules["constraints"](given[name]):
                return {"error": f"{name} is out of bounds"}
        try:
            return work(**given)
        except Refused as refusal:
            return {"error": str(refusal)}

    return handler


def serve(work: Callable[..., dict[str, Any]], schema: Schema) -> None:
    """Take jobs until the worker is stopped."""
    runpod.serverless.start({"handler": handler_of(work, schema)})
