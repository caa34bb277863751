"""The command line's frame: what it imports, how it fails, and who listens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cachepod import __version__
from cachepod.cli.main import COMMANDS, cli
from tests.support.cli import COMMAND, Result, cachepod, environment, on_terminal
from tests.support.imports import imported_by

HEAVY = {
    "boto3",
    "botocore",
    "uv",
    "blake3",
    "zstandard",
    "tqdm",
    "xxhash",
    "filelock",
    "packaging",
}
ENGINE = {
    "cachepod.snapshot.engine",
    "cachepod.snapshot.publish",
    "cachepod.snapshot.restore",
    "cachepod.model.manifest",
    "cachepod.environment.install",
}


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_version_and_help_import_nothing_but_the_command_line(word: str, tmp_path: Path) -> None:
    result, names = imported_by(word, cwd=tmp_path)
    assert result.code == 0
    assert "click" in names
    assert not names & (HEAVY | ENGINE)
    assert not [name for name in names if name.startswith("cachepod.cli.commands")]
    assert not [name for name in names if name.startswith("cachepod.environment")]


def test_the_help_of_one_command_imports_no_other(tmp_path: Path) -> None:
    result, names = imported_by("restore", "--help", cwd=tmp_path)
    assert result.code == 0
    assert "--no-direct" in result.out
    assert not names & (HEAVY | ENGINE)
    loaded = [name for name in names if name.startswith("cachepod.cli.commands.")]
    assert loaded == ["cachepod.cli.commands.restore"]


def test_the_version_is_the_package_s(tmp_path: Path) -> None:
    assert cachepod("--version", cwd=tmp_path).out == f"cachepod {__version__}\n"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_can_be_imported_and_says_what_it_does(name: str) -> None:
    context = click.Context(cli)
    command = cli.get_command(context, name)
    assert command is not None
    assert command.name == name
    assert command.help
    assert {"--json", "--quiet", "--verbose", "--config"} <= {
        option for parameter in command.params for option in parameter.opts
    }


def test_an_unknown_command_is_a_usage_error(tmp_path: Path) -> None:
    result = cachepod("resotre", cwd=tmp_path)
    assert result.code == 2
    assert "resotre" in result.err
    assert result.out == ""


def test_an_unknown_option_is_one_json_document_if_json_was_asked_for(tmp_path: Path) -> None:
    result = cachepod("key", "--json", "--nonsense", cwd=tmp_path)
    assert result.code == 2
    assert result.json["exit_code"] == 2
    assert "--nonsense" in result.json["error"]


def test_words_after_two_dashes_are_not_cachepod_s_own(tmp_path: Path) -> None:
    result = cachepod("up", "--level", "99", "--", "program", "--json", cwd=tmp_path)
    assert result.code == 2
    assert result.out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["publish", "--level", "0"], "--level"),
        (["restore", "--timeout", "-1"], "--timeout"),
        (["restore", "--threads", "many"], "--threads"),
        (["show"], "KEY"),
        (["diff", "one"], "B"),
        (["run"], "CMD"),
    ],
)
def test_impossible_options_are_named(words: list[str], said: str, tmp_path: Path) -> None:
    result = cachepod(*words, cwd=tmp_path)
    assert result.code == 2
    assert said in result.err


def test_a_configuration_error_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "cachepod.toml").write_text("\nlevle = 3\n")
    result = cachepod("config", cwd=tmp_path)
    assert result.code == 2
    assert result.err.startswith("cachepod: cachepod.toml:2: ")
    assert "Traceback" not in result.err
    assert len(result.err.splitlines()) == 1


def test_a_traceback_is_shown_with_vv_only(tmp_path: Path) -> None:
    assert "Traceback" not in cachepod("key", "-v", cwd=tmp_path).err
    assert "Traceback" in cachepod("key", "-vv", cwd=tmp_path).err


def test_v_tells_the_settings_that_are_not_the_default(tmp_path: Path) -> None:
    (tmp_path / "cachepod.toml").write_text('packages = ["six"]\nlevel = 4\n')
    result = cachepod("key", "-v", cwd=tmp_path)
    assert "cachepod: level = 4 (cachepod.toml:2)\n" in result.err
    assert "threads" not in result.err


def test_an_error_nobody_foresaw_is_one_sentence_too(tmp_path: Path) -> None:
    program = (
        "from cachepod.environment import config\n"
        "def broken(*words): raise RuntimeError('boom')\n"
        "config.load_settings = broken\n"
        "from cachepod.cli.main import main\n"
        "main({words!r})\n"
    )
    for words in (["config"], ["restore"], ["config", "--json"]):
        done = subprocess.run(
            [sys.executable, "-c", program.format(words=words)],
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "RuntimeError: boom" in done.stderr
        assert "-vv" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert json.loads(done.stdout)["exit_code"] == 1


def test_secrets_are_not_printed(tmp_path: Path) -> None:
    (tmp_path / "cachepod.toml").write_text(
        'packages = ["six"]\nindex_url = "https://user:hunter2@example.org/simple"\n'
    )
    for words in (["config"], ["config", "--json"], ["key", "--explain"], ["key", "-vv"]):
        result = cachepod(*words, cwd=tmp_path)
        assert result.code == 0
        assert "hunter2" not in result.out + result.err


def test_precedence_is_flag_environment_file_default(tmp_path: Path) -> None:
    (tmp_path / "cachepod.toml").write_text("level = 4\nthreads = 2\n")
    env = {"CACHEPOD_LEVEL": "5", "HANDLER_TYPE": "tts"}
    shown = cachepod("config", "--json", "--timeout", "7", cwd=tmp_path, env=env).json
    assert shown["settings"]["level"] == 5
    assert shown["settings"]["handler"] == "tts"
    assert shown["settings"]["threads"] == 2
    assert shown["settings"]["timeout"] == 7
    assert shown["sources"]["timeout"] == "flag --timeout"
    assert shown["sources"]["level"] == "environment CACHEPOD_LEVEL"
    assert shown["sources"]["handler"] == "environment HANDLER_TYPE"
    assert shown["sources"]["threads"] == "cachepod.toml:2"
    assert shown["sources"]["direct"] == "default"


def test_the_key_alone_is_on_stdout(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("six\n")
    result = cachepod("key", "-r", "requirements.txt", cwd=tmp_path)
    assert result.code == 0
    assert len(result.out.split()) == 1
    assert result.err.startswith("cachepod: key of ")
    assert cachepod("key", "-q", "-r", "requirements.txt", cwd=tmp_path) == Result(
        0, result.out, ""
    )


def test_every_input_is_explained_with_its_source(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("# first\nsix==1.17.0\n")
    result = cachepod("key", "--explain", "-r", "requirements.txt", cwd=tmp_path)
    assert "requirement:six" in result.out
    assert "requirements.txt:2" in result.out
    document = cachepod("key", "--explain", "--json", "-r", "requirements.txt", cwd=tmp_path).json
    assert document["inputs"]["requirement:six"] == "==1.17.0"
    assert document["key"] == result.out.split()[0]


def test_a_reader_who_goes_away_is_no_failure(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "config"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 0
    assert "Error" not in done.stderr
    assert "Exception" not in done.stderr


def test_help_into_a_closed_pipe_is_no_failure(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "--help"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_result_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "config"],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "stdout: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_listening_on_stderr_does_not_matter(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "config"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=writer,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 0
    assert done.stdout.startswith("KEY ")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_matter(closed: str, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("six\n")
    for words in ("config", "restore -r requirements.txt", "--help"):
        done = subprocess.run(
            ["sh", "-c", f'"$@" {words} {closed}', "sh", *COMMAND],
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == (3 if words.startswith("restore") else 0)
        assert "Traceback" not in done.stderr


def test_a_working_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", f'rmdir "{gone}" && exec "$@"', "sh", *COMMAND, "config"],
        cwd=gone,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("cachepod: the working directory is gone")


def test_a_terminal_shows_the_same_words_as_a_pipe(tmp_path: Path) -> None:
    code, shown = on_terminal([*COMMAND, "config"], cwd=tmp_path)
    assert code == 0
    assert shown.replace("\r\n", "\n").startswith(cachepod("config", cwd=tmp_path).out)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_get_their_completion(shell: str, tmp_path: Path) -> None:
    result = cachepod(cwd=tmp_path, env={"_CACHEPOD_COMPLETE": f"{shell}_source"})
    assert result.code == 0
    assert "_CACHEPOD_COMPLETE" in result.out


def complete(line: str, cwd: Path) -> list[str]:
    words = line.split(" ")
    env = {
        "_CACHEPOD_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    return [row.partition(",")[2] for row in cachepod(cwd=cwd, env=env).out.splitlines()]


def test_commands_and_options_complete(tmp_path: Path) -> None:
    assert complete("cachepod re", tmp_path) == ["restore"]
    assert "--no-direct" in complete("cachepod restore --no", tmp_path)
