"""What a reader sees: numbers, tables, and nothing that a terminal would obey."""

from __future__ import annotations

import json

import pytest

from cachepod.cli.render import (
    Console,
    Outcome,
    age,
    count,
    duration,
    failure,
    moment,
    phases,
    printable,
    rate,
    table,
    work,
)
from cachepod.errors import InstallFailed, Miss, UsageProblem


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.237, "0.24 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (99.94, "99.9 s"),
        (99.96, "1 min 40 s"),
        (125, "2 min 05 s"),
        (3599.6, "1 h 00 min"),
        (3725, "1 h 02 min"),
    ],
)
def test_a_duration_has_the_digits_that_matter(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_work_names_files_bytes_time_and_rate() -> None:
    assert work(43101, 6_300_000_000, 3.9) == "43,101 files, 6.3 GB in 3.90 s (1.6 GB/s)"
    assert work(1, 10, 0.0).startswith("1 file, 10 B in 0.00 s")


def test_a_rate_over_no_time_at_all_is_a_number() -> None:
    assert rate(0, 0) == "0 B/s"


def test_phases_leave_out_what_took_no_time() -> None:
    assert phases({"plan": 0.2, "swap": 0.0001, "fetch": 3.5}) == ("; plan 0.20 s, fetch 3.50 s")
    assert phases({}) == ""


def test_ages_are_rounded_down_to_two_of_a_unit() -> None:
    now = 1_000_000_000.0
    assert age(now - 30, now) == "just now"
    assert age(now - 130, now) == "2 minutes ago"
    assert age(now - 7300, now) == "2 hours ago"
    assert age(now - 10 * 86400, now) == "10 days ago"
    assert age(now + 500, now) == "just now"


def test_a_time_that_no_calendar_has_does_not_end_a_listing() -> None:
    assert moment(1e300) == "?"


def test_a_table_aligns_numbers_to_the_right() -> None:
    shown = table(("KEY", "SIZE"), [("a", "5 B"), ("long-key", "12.1 GB")], right="SIZE")
    assert shown.splitlines() == ["KEY          SIZE", "a             5 B", "long-key  12.1 GB"]


def test_names_from_a_store_cannot_steer_the_terminal() -> None:
    assert printable("evil\x1b[2Jname\n") == "evil\\x1b[2Jname\\n"
    assert "\x1b" not in table(("A",), [("\x1b]0;title\x07",)])
    assert printable("caf\u00e9 \u4e2d") == "caf\u00e9 \u4e2d"


def test_a_name_that_is_not_utf8_is_shown_escaped() -> None:
    assert printable("f\udcffoo") == "f\\udcffoo"


def test_an_error_is_one_sentence_with_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    Console().show(failure(UsageProblem("no such thing", hint="give another")))
    assert capsys.readouterr().err == "cachepod: no such thing; give another\n"


def test_the_words_of_the_installer_follow_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    Console().show(failure(InstallFailed("uv failed", output="first\nsecond\n")))
    assert capsys.readouterr().err == "cachepod: uv failed\n  first\n  second\n"


def test_a_failure_is_a_json_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    Console(json=True).show(failure(Miss("some-key")))
    out = json.loads(capsys.readouterr().out)
    assert out == {
        "error": "some-key: no snapshot of this key",
        "kind": "Miss",
        "exit_code": 3,
    }


def test_quiet_leaves_the_errors(capsys: pytest.CaptureFixture[str]) -> None:
    Console(quiet=True).show(Outcome(text="result", summary="how long", error="bad"))
    captured = capsys.readouterr()
    assert captured.out == "result\n"
    assert captured.err == "cachepod: bad\n"


def test_a_traceback_is_for_those_who_ask(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = failure(Miss("k"), trace="Traceback of it\n")
    Console().show(outcome)
    Console(verbose=1).show(outcome)
    assert "Traceback" not in capsys.readouterr().err
    Console(verbose=2).show(outcome)
    assert "Traceback of it" in capsys.readouterr().err


def test_one_is_not_many() -> None:
    assert count(1, "file") == "1 file"
    assert count(1234, "file") == "1,234 files"
