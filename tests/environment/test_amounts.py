from __future__ import annotations

from pathlib import Path

import pytest

from cachepod.environment.amounts import duration, keys, size
from cachepod.environment.settings import Given
from cachepod.errors import ConfigurationProblem


def given(value: object) -> Given:
    return Given(value, "here", "here", Path("/"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30d", 2_592_000),
        ("12h", 43_200),
        ("90m", 5400),
        ("90min", 5400),
        ("45s", 45),
        ("45", 45),
        (" 1.5 H ", 5400),
        ("2w", 1_209_600),
        ("0", 0),
        (45, 45),
        (0.5, 0.5),
    ],
)
def test_a_span_of_time(text: object, seconds: float) -> None:
    assert duration("max_age", given(text)) == seconds


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("50GB", 50 * 10**9),
        ("500 MB", 500 * 10**6),
        ("1.5TB", 1_500_000_000_000),
        ("1k", 1000),
        ("10GiB", 10 * 2**30),
        ("7", 7),
        ("7B", 7),
        (7, 7),
    ],
)
def test_an_amount_of_bytes(text: object, amount: int) -> None:
    assert size("max_size", given(text)) == amount


@pytest.mark.parametrize("value", ["", "x", "1y", "-1", "1 2", "٣d", True, None, [], -1, 1e300])
@pytest.mark.parametrize("read", [duration, size])
def test_what_is_neither_is_refused(read, value: object) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigurationProblem, match="here: max must be"):
        read("max", given(value))


def test_keys_are_checked_and_come_once() -> None:
    assert keys("keep", given(["a", "b", "a"])) == ("a", "b")
    with pytest.raises(ConfigurationProblem, match="cannot be a key"):
        keys("keep", given(["a/b"]))
