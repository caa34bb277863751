"""Where the time went, in the documents of ``--json`` and in one line of ``-v``."""

from __future__ import annotations

import re
from typing import Any

from cachepod.cli.profile import profile_document, profile_line
from cachepod.snapshot.restore import RestoreReport
from cachepod.snapshot.spent import Profile, Share
from tests.support.project import Project

PROFILE = Profile(
    wall=4.0,
    parallel=3.5,
    threads=2,
    readers=1,
    kinds={
        "read": Share(3.00004, 0.5, 1000, 3),
        "decode": Share(6.5, 2.0, 4_000_000_000, 900),
        "idle": Share(0.001, 0.0, 0, 0),
    },
)


def whole(profile: dict[str, Any]) -> float:
    """Thread seconds that the kinds of *profile* must add up to."""
    threads = profile["threads"] + profile["readers"]
    return float(profile["wall"] - profile["parallel"] + profile["parallel"] * threads)


def test_a_document_has_what_a_rate_is_computed_from() -> None:
    document = profile_document(PROFILE)
    assert document["kinds"]["decode"] == {
        "seconds": 6.5,
        "cpu": 2.0,
        "bytes": 4_000_000_000,
        "calls": 900,
    }
    assert document["kinds"]["read"]["seconds"] == 3.0
    assert document["kinds"]["idle"] == {"seconds": 0.001, "cpu": 0.0}
    assert (document["wall"], document["parallel"]) == (4.0, 3.5)


def test_a_line_has_the_dearest_kind_first_and_says_how_fast_a_core_decodes() -> None:
    line = profile_line("restore", RestoreReport("restored", profile=PROFILE))
    assert line == (
        "restore, seconds of 2 threads and 1 that read ahead: "
        "decode 6.50 s (2.0 GB/s a core), read 3.00 s"
    )
    assert profile_line("restore", RestoreReport("confirmed")) == ""
    assert profile_line("restore", None) == ""


def test_a_publish_and_a_restore_say_where_their_time_went(project: Project) -> None:
    assert project.run("install").code == 0
    published = project.run("publish", "--json")
    (stored,) = published.json["stores"]
    kinds = stored["profile"]["kinds"]
    assert kinds["read"]["bytes"] == stored["read"] > 300_000
    assert sum(kind["seconds"] for kind in kinds.values()) <= whole(stored["profile"]) + 0.001
    assert "seconds of" not in published.err
    assert "profile" not in project.run("publish", "--json").json["stores"][0]

    project.wipe()
    restored = project.run("restore", "--json")
    document = restored.json
    kinds = document["profile"]["kinds"]
    assert kinds["write"]["bytes"] == document["written"]
    assert kinds["read"]["bytes"] == document["read"]
    assert sum(kind["seconds"] for kind in kinds.values()) <= whole(document["profile"]) + 0.001
    assert "seconds of" not in restored.err
    confirmed = project.run("restore", "--json").json
    assert confirmed["outcome"] == "confirmed"
    assert "profile" not in confirmed


def test_verbose_commands_tell_it_in_one_line(project: Project) -> None:
    assert project.run("install").code == 0
    published = project.run("publish", "-v").err
    line = r"^cachepod: publish to \S+, seconds of \d threads?: .*\d s"
    assert len(re.findall(line, published, re.M)) == 1
    project.wipe()
    restored = project.run("restore", "-v").err
    line = r"^cachepod: restore, seconds of \d threads?: .*\d s"
    assert len(re.findall(line, restored, re.M)) == 1
    project.wipe()
    up = project.run("up", "--json")
    assert up.json["restore"]["profile"]["kinds"]["create"]["calls"] > 0
