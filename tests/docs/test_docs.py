"""The documentation holds: its commands parse and run, its links resolve, its tables are true."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cachepod import errors
from cachepod.cli.main import COMMANDS, cli
from tests.docs.markdown import ROOT, RUNNABLE, Block, Page, pages, read_page

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGES = pages()
BLOCKS = [block for page in PAGES for block in page.blocks]
SHELL = ("bash", "console", "sh")

# Hosts that a reader may be sent to, or that the software itself talks to. Anything else in a
# tracked file is most likely a developer's own mirror.
PUBLIC_HOSTS = re.compile(
    r"(?:[\w-]+\.)*(?:pypi\.org|pythonhosted\.org|python\.org|pytorch\.org|github\.com|"
    r"github\.io|githubusercontent\.com|apache\.org|keepachangelog\.com|semver\.org|runpod\.io|"
    r"nvidia\.com|debian\.org|ubuntu\.com|docker\.com|amazonaws\.com|w3\.org|rfc-editor\.org|"
    r"kernel\.org|man7\.org|bford\.info|gnu\.org|"
    r"example|example\.(?:com|org|net|edu)|test|invalid|localhost)"
)
# What a requirements file may hold besides requirements.
OPTIONS_OF_PIP = (
    *("--constraint", "--editable", "--extra-index-url", "--find-links", "--hash", "--index-url"),
    *("--no-binary", "--no-index", "--only-binary", "--pre", "--prefer-binary", "--require-hashes"),
    *("--requirement", "--trusted-host", "--use-feature", "--config-settings", "--global-option"),
)
URL_HOST = re.compile(r"\b[a-z][a-z0-9+]*://(?:[^/@\s\"'<>]*@)?(?P<host>[A-Za-z][\w-]*\.[\w.-]+)")
PLACE_OF_A_DEVELOPER = re.compile(r"(?<![\w.$}~-])/(?:work|root|farm|Users)/")


def shell_lines(page: Page) -> Iterator[tuple[str, str]]:
    """Where and what: each line of a shell block, and each `cachepod ...` in the prose."""
    for block in page.blocks:
        if block.language not in SHELL:
            continue
        text = block.text.replace("\\\n", " ")
        for line in text.splitlines():
            if block.language == "console":
                if not line.startswith("$ "):
                    continue
                line = line[2:]
            yield block.name, line
    for number, span in page.spans():
        if span.startswith("cachepod "):
            yield f"{page.name}:{number}", span


def cachepod_commands(line: str) -> Iterator[list[str]]:
    """The arguments of each cachepod in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for token in [*lexer, ";"]:
        if set(token) <= set("();<>|&"):
            if words and words[0] == "cachepod":
                yield words[1:]
            words = []
        else:
            words.append(token)


COMMAND_LINES = [
    pytest.param(arguments, id=f"{where} cachepod {' '.join(arguments)}")
    for page in PAGES
    for where, line in shell_lines(page)
    for arguments in cachepod_commands(line)
]


@pytest.mark.parametrize("arguments", COMMAND_LINES)
def test_a_documented_command_line_is_understood(arguments: list[str]) -> None:
    if arguments[0] in ("--help", "--version"):
        return
    context = click.Context(cli, info_name="cachepod")
    name, command, rest = cli.resolve_command(context, list(arguments))
    assert command is not None
    assert name is not None
    command.make_context(name, rest, parent=context)


def test_the_documentation_shows_every_command() -> None:
    shown = {param.values[0][0] for param in COMMAND_LINES if param.values[0]}
    assert set(COMMANDS) <= shown


def known_options() -> set[str]:
    """Every option of cachepod, of the scripts and of the benchmarks, and those of other tools."""
    known = {"--help", "--version", *OPTIONS_OF_PIP}
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            known |= {*parameter.opts, *parameter.secondary_opts}
    for script in (*ROOT.glob("scripts/*"), *ROOT.glob("benchmarks/**/*.py")):
        if script.is_file():
            known |= set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", script.read_text("utf-8")))
    return known


def test_a_documented_option_exists() -> None:
    known = known_options()
    unknown = [
        f"{page.name}:{number}: {option}"
        for page in PAGES
        for number, span in page.spans()
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", span)
        if span.startswith(("--", "cachepod ", "scripts/")) and option not in known
    ]
    assert not unknown


def test_a_documented_script_exists() -> None:
    missing = [
        f"{page.name}: {word}"
        for page in PAGES
        for text in [*(span for _, span in page.spans()), *(b.text for b in page.blocks)]
        for word in re.findall(r"(?<![\w./-])(?:scripts|\.ci|benchmarks)[/.][\w.-]+\w", text)
        if not (ROOT / word).exists()
        and not (ROOT / f"{word.replace('.', '/')}.py").exists()
        and not (ROOT / word.replace(".", "/") / "__main__.py").exists()
    ]
    assert not missing


RUNNABLE_BLOCKS = [
    pytest.param(block, id=block.name)
    for block in BLOCKS
    if block.language in SHELL and block.before.strip() == RUNNABLE
]


def transcript(block: Block) -> tuple[str, list[tuple[str, list[str]]]]:
    """A script of the block's commands, and each command with the output that it shows."""
    steps: list[tuple[str, list[str]]] = []
    for line in block.lines:
        if block.language != "console":
            steps.append((line, []))
        elif line.startswith("$ "):
            steps.append((line[2:], []))
        else:
            steps[-1][1].append(line)
    return "\n".join(f"{command}; echo '<end>'" for command, _ in steps), steps


def matches(shown: list[str], said: str) -> bool:
    """Whether *said* is what the page shows; `...` stands for any text."""
    pattern = r"\s*".join(re.escape(line.strip()).replace(r"\.\.\.", r"[\s\S]*?") for line in shown)
    return re.fullmatch(pattern, said.strip()) is not None


@pytest.mark.parametrize("block", RUNNABLE_BLOCKS)
def test_a_runnable_example_does_what_it_shows(block: Block, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    work = tmp_path / "work"
    tools.mkdir()
    work.mkdir()
    command = tools / "cachepod"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cachepod "$@"\n')
    command.chmod(0o755)
    script, steps = transcript(block)
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=work,
        env={
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "LC_ALL": "C.UTF-8",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    said = done.stdout.split("<end>\n")
    for (line, shown), output in zip(steps, said, strict=False):
        if shown:
            assert matches(shown, output), f"$ {line}\n{output}"


def test_there_are_runnable_examples() -> None:
    assert RUNNABLE_BLOCKS


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_a_link_leads_somewhere(page: Page) -> None:
    broken = []
    for line, target in page.links():
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.path.parent / path).resolve() if path else page.path
        if not file.exists() or ROOT not in [file, *file.parents]:
            broken.append(f"{page.name}:{line}: {target}")
        elif fragment and fragment not in read_page(file).anchors():
            broken.append(f"{page.name}:{line}: no heading for {target}")
    assert not broken


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=block.name) for block in BLOCKS if block.language == "toml"]
)
def test_a_configuration_example_is_accepted(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cachepod.environment.config import load_settings

    table = tomllib.loads(block.text)
    name = "pyproject.toml" if "tool" in table else "cachepod.toml"
    (tmp_path / name).write_text(block.text)
    monkeypatch.chdir(tmp_path)
    settings = load_settings({}, {"HOME": str(tmp_path)}, tmp_path)
    given = table["tool"]["cachepod"] if "tool" in table else table
    assert {f: s for f, s in settings.sources.items() if f in given}.keys() == given.keys()


def test_the_table_of_exit_codes_is_that_of_the_program() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    table = text.partition("## Exit codes")[2].partition("\n## ")[0]
    documented = {
        int(code) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.M) for code in row.split(",")
    }
    defined = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert documented == defined


def tracked_files() -> list[Path]:
    """Files that a clone has; all of the tree where this is not a clone."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git repository")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_tracked_file_speaks_of_a_developers_machine() -> None:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a stored example, not something that a person wrote
        for number, line in enumerate(text.splitlines(), 1):
            where = f"{path.relative_to(ROOT)}:{number}"
            if PLACE_OF_A_DEVELOPER.search(line):
                found.append(f"{where}: {line.strip()}")
            hosts = [match["host"] for match in URL_HOST.finditer(line)]
            found += [f"{where}: {host}" for host in hosts if not PUBLIC_HOSTS.fullmatch(host)]
    assert not found
