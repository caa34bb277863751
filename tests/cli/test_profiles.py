"""Handlers on the command line: what the hook makes of their profiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import cli
from tests.support.imports import imported_by
from tests.support.project import Project


@pytest.mark.parametrize("handler", ["tts", "video", "storage", "audio"])
def test_a_built_in_handler_has_a_key_without_a_configuration(tmp_path: Path, handler: str) -> None:
    found = cli.cachepod("key", "--handler", handler, "--explain", "--json", cwd=tmp_path)
    assert found.code == 0, found.err
    inputs = found.json["inputs"]
    assert inputs["handler"] == handler
    assert ("requirement:torch" in inputs) == (handler != "storage")
    by_variable = cli.cachepod("key", "-q", cwd=tmp_path, env={"HANDLER_TYPE": handler})
    assert by_variable.out.strip() == found.json["key"]


def test_an_unknown_handler_is_a_matter_of_usage(tmp_path: Path) -> None:
    for command in ("key", "restore", "install", "publish", "up", "lock", "config", "run"):
        words = [command, *(["--", "true"] if command in ("up", "run") else [])]
        done = cli.cachepod(*words, cwd=tmp_path, env={"CACHEPOD_HANDLER": "vidoe"})
        assert done.code == 2
        assert done.err.startswith("cachepod: CACHEPOD_HANDLER: there is no handler 'vidoe'")
        assert "did you mean video?" in done.err
        assert len(done.err.splitlines()) == 1


def test_the_configuration_shows_who_gave_what(project: Project) -> None:
    project.configure("['torch==2.8.0']", "apt = ['git']\n[handlers.tts]\ncuda = '12.8'")
    shown = project.run("config", "--handler", "tts", "--json").json
    assert shown["sources"]["packages"] == "profile tts, cachepod.toml:2"
    assert shown["sources"]["apt"] == "profile tts, cachepod.toml:5"
    assert shown["sources"]["cuda"] == "cachepod.toml:7"
    assert shown["sources"]["handler"] == "flag --handler"
    assert shown["settings"]["apt"] == ["ffmpeg", "libsndfile1", "espeak-ng", "git"]
    assert "torch==2.7.0" not in shown["settings"]["packages"]


@pytest.fixture
def kinds(project: Project) -> Project:
    """A project with two kinds of worker on one base."""
    project.configure(
        '["alpha==1.0"]',
        "[handlers.one]\npackages = ['beta']\n"
        "[handlers.other]\nbase = 'one'\nwithout = ['beta']\npackages = ['alpha==2.0']",
    )
    return project


def test_each_kind_of_worker_has_its_environment_and_its_snapshot(kinds: Project) -> None:
    first = kinds.ready("--handler", "one")
    kinds.wipe()
    second = kinds.ready("--handler", "other")
    assert kinds.version_of("alpha") == "2.0"
    assert first != second
    kinds.wipe()
    assert kinds.run("restore", "--handler", "one").code == 0
    assert (kinds.version_of("alpha"), kinds.version_of("beta")) == ("1.0", "1.0")
    rows = kinds.run("ls", "--json").json["snapshots"]
    assert [row["handler"] for row in rows] == ["other", "one"]


def test_a_worker_starts_whatever_other_software_calls_its_kind(project: Project) -> None:
    done = project.run("up", "--", "python", "-c", "import alpha", env={"HANDLER_TYPE": "pool-7"})
    assert done.code == 0, done.err
    assert "HANDLER_TYPE: there is no handler 'pool-7'" in done.err


def test_a_no_op_publish_reads_the_profile_and_imports_no_library(kinds: Project) -> None:
    kinds.ready("--handler", "one")
    result, names = imported_by("publish", "--handler", "one", cwd=kinds.root)
    assert result.code == 0
    assert " present in " in result.err
    assert "cachepod.environment.profiles" in names
    heavy = {"boto3", "uv", "blake3", "zstandard", "tqdm", "xxhash", "filelock", "packaging",
             "importlib.resources", "importlib.metadata", "difflib"}  # fmt: skip
    assert not names & heavy


@pytest.mark.network
def test_profiles_store_what_they_have_in_common_once(tmp_path: Path) -> None:
    (tmp_path / "cachepod.toml").write_text(
        "store = ['store']\ncompile = false\n"
        "[handlers.base]\npackages = ['urllib3==2.2.3', 'idna==3.10', 'certifi==2024.8.30']\n"
        "[handlers.one]\nbase = 'base'\npackages = ['click==8.1.8']\n"
        "[handlers.other]\nbase = 'base'\npackages = ['colorama==0.4.6']\n"
    )
    online = {"UV_OFFLINE": "0"}
    reports = {}
    for handler in ("one", "other"):
        words = ("--handler", handler)
        done = cli.cachepod("install", *words, "--force", cwd=tmp_path, env=online)
        assert done.code == 0, done.err
        document = cli.cachepod("publish", *words, "--json", cwd=tmp_path).json
        reports[handler] = {"key": document["key"], **document["stores"][0]}
    show = cli.cachepod("show", "--json", reports["other"]["key"], cwd=tmp_path).json
    sizes = {each["name"]: each["size"] for each in show["distributions"]}
    common = sum(sizes[name] for name in ("urllib3", "idna", "certifi"))
    assert reports["one"]["reused"] == 0
    assert reports["other"]["reused"] > 0.95 * common > 500_000
    assert reports["other"]["stored_new"] < 0.5 * reports["one"]["stored_new"]
