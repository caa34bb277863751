"""The configuration: who wins, what is refused and how it is named, and its reference."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepod.environment.config import KEYS, Settings, load_settings, rows
from cachepod.environment.toml import key_lines, loads
from cachepod.errors import ConfigurationProblem, UsageProblem

REFERENCE = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(
    text: str = "",
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    name: str = "cachepod.toml",
) -> Settings:
    """The settings from a file in the working directory."""
    if text:
        Path(name).write_text(text)
    return load_settings(flags or {}, {"HOME": "/home/nobody", **(environ or {})}, Path.cwd())


def refused(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(UsageProblem) as caught:
        load(*args, **kwargs)
    return f"{caught.value}; {caught.value.hint}" if caught.value.hint else str(caught.value)


class TestPrecedence:
    def test_a_flag_wins_over_a_variable_and_that_over_the_file_and_that_over_the_default(
        self,
    ) -> None:
        file, variable = "level = 4\n", {"CACHEPOD_LEVEL": "5"}
        for settings, level, source in (
            (load(), 3, "default"),
            (load(file), 4, "cachepod.toml:1"),
            (load(file, environ=variable), 5, "environment CACHEPOD_LEVEL"),
            (load(file, {"level": 6}, variable), 6, "flag --level"),
        ):
            assert (settings.level, settings.sources["level"]) == (level, source)

    def test_a_list_replaces_the_one_below_it(self) -> None:
        found = load("requirements = ['a.txt', 'b.txt']\n", {"requirements": ("c.txt",)})
        assert found.requirements == (Path.cwd() / "c.txt",)

    def test_options_that_were_not_given_decide_nothing(self) -> None:
        found = load("store = '/a'\nlevel = 4\n", {"store": (), "level": None, "config": None})
        assert (found.store, found.level) == (("/a",), 4)

    def test_an_empty_variable_is_one_that_is_not_set(self) -> None:
        assert load("level = 4\n", environ={"CACHEPOD_LEVEL": " "}).level == 4

    def test_the_handler_s_own_variable_wins_over_the_platform_s(self) -> None:
        both = {"HANDLER_TYPE": "video", "CACHEPOD_HANDLER": "tts"}
        assert load(environ=both).handler == "tts"
        found = load("handler = 'audio'\n", environ={"HANDLER_TYPE": "video"})
        assert (found.handler, found.source("handler")) == ("video", "HANDLER_TYPE")

    def test_a_lock_gives_way_to_requirements_that_were_asked_for_since(self) -> None:
        file = "requirements = 'a.txt'\nlock = 'a.lock'\n"
        assert load(file).lock == Path.cwd() / "a.lock"
        asked = load(file, {"requirements": ("b.txt",)})
        assert (asked.lock, asked.sources["lock"]) == (None, "default")
        assert load(file, environ={"CACHEPOD_PACKAGES": "numpy"}).lock is None
        lock_too = {"CACHEPOD_LOCK": "b.lock", "CACHEPOD_PACKAGES": "numpy"}
        assert load(file, environ=lock_too).lock == Path.cwd() / "b.lock"

    def test_every_key_has_a_source(self) -> None:
        assert set(load().sources) == set(KEYS)
        assert set(load().sources.values()) == {"default"}

    def test_a_flag_that_is_no_key_is_a_mistake_of_the_caller(self) -> None:
        with pytest.raises(TypeError, match="nonsense"):
            load(flags={"nonsense": 1})


class TestTheFile:
    def test_it_is_found_in_the_working_directory_or_above_it(self, tmp_path: Path) -> None:
        (tmp_path / "cachepod.toml").write_text("requirements = 'r.txt'\n")
        deep = tmp_path / "a" / "b"
        deep.mkdir(parents=True)
        found = load_settings({}, {"HOME": "/"}, deep)
        assert found.file == tmp_path / "cachepod.toml"
        assert found.root == tmp_path
        assert found.requirements == (tmp_path / "r.txt",)
        assert found.prefix == tmp_path / ".venv"

    def test_the_nearest_one_counts(self, tmp_path: Path) -> None:
        (tmp_path / "cachepod.toml").write_text("level = 4\n")
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "pyproject.toml").write_text("[tool.cachepod]\nlevel = 5\n")
        assert load_settings({}, {"HOME": "/"}, tmp_path / "a").level == 5

    def test_a_table_of_a_project_file_is_one(self) -> None:
        text = '[project]\nname = "x"\n\n[tool.cachepod]\nlevel = 4\n'
        found = load(text, name="pyproject.toml")
        assert (found.level, found.sources["level"]) == (4, "pyproject.toml:5")

    def test_a_project_file_without_one_is_passed_over(self, tmp_path: Path) -> None:
        (tmp_path / "pyproject.toml").write_text("[project]\nname = 'cachepod-user'\n")
        assert load().file is None

    def test_of_two_in_one_directory_the_one_of_our_own_counts(self, tmp_path: Path) -> None:
        (tmp_path / "pyproject.toml").write_text("[tool.cachepod]\nlevel = 5\n")
        assert load("level = 4\n").level == 4

    def test_it_can_be_named_by_flag_and_by_variable(self, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc" / "one.toml").write_text("level = 4\nrequirements = 'r.txt'\n")
        (tmp_path / "etc" / "two.toml").write_text("level = 5\n")
        by_variable = {"CACHEPOD_CONFIG": "etc/one.toml"}
        found = load("level = 6\n", environ=by_variable)
        assert (found.level, found.sources["level"]) == (4, "etc/one.toml:1")
        assert found.requirements == (tmp_path / "etc" / "r.txt",)
        assert load(flags={"config": "etc/two.toml"}, environ=by_variable).level == 5

    def test_one_that_is_named_and_missing_is_named(self) -> None:
        assert refused(flags={"config": "x.toml"}) == "--config: the file x.toml does not exist"
        assert "CACHEPOD_CONFIG" in refused(environ={"CACHEPOD_CONFIG": "x.toml"})
        assert "cannot be read" in refused(flags={"config": "."})

    def test_a_project_file_that_is_named_must_have_the_table(self, tmp_path: Path) -> None:
        (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
        assert "no table [tool.cachepod]" in refused(flags={"config": "pyproject.toml"})

    def test_the_null_device_is_none(self) -> None:
        found = load("level = 4\n", {"config": "/dev/null"})
        assert (found.level, found.root) == (3, Path.cwd())

    def test_what_is_not_toml_is_named_with_its_line(self) -> None:
        assert refused("level = 3\nstore = [\n").startswith("cachepod.toml:")
        assert refused("level = 3\n\nstore == 1\n").startswith("cachepod.toml:3: ")
        Path("cachepod.toml").write_bytes(b"level = 3 # \xff\n")
        assert "UTF-8" in refused()

    def test_a_table_that_is_none_is_named(self) -> None:
        assert "pyproject.toml:2: tool.cachepod must be a table" in refused(
            "[tool]\ncachepod = 3\n", name="pyproject.toml"
        )

    @pytest.mark.parametrize(
        ("key", "guess"),
        [("requirement", "requirements"), ("prefx", "prefix"), ("index-url", "index_url"),
         ("extra-index-urls", "extra_index_urls"), ("Store", "store"), ("time_out", "timeout")],
    )  # fmt: skip
    def test_an_unknown_key_is_named_with_the_nearest_known(self, key: str, guess: str) -> None:
        said = refused(f"# first\nlevel = 3\n{key} = 'x'\n")
        assert said == f"cachepod.toml:3: unknown key {key!r}; did you mean {guess}?"

    def test_one_that_resembles_none_is_named_alone(self) -> None:
        assert refused("zzzzzz = 1\n") == "cachepod.toml:1: unknown key 'zzzzzz'"

    def test_an_unknown_table_is_named_with_its_own_line(self) -> None:
        assert refused("level = 3\n[tree]\na = 'x'\n").startswith("cachepod.toml:2: unknown key")


WRONG = [
    ("level = '3'", "level must be a whole number, not text"),
    ("level = 3.0", "level must be a whole number, not the number 3.0"),
    ("level = true", "level must be a whole number, not the truth value true"),
    ("level = 23", "level must be between 1 and 22, not 23"),
    ("level = 0", "level must be between 1 and 22, not 0"),
    ("threads = -1", "threads must be at least 0, not -1"),
    ("timeout = 'x'", "timeout must be a number, not text"),
    ("timeout = -1", "timeout must be at least 0, not -1"),
    ("timeout = nan", "timeout must be at least 0, not nan"),
    ("wait = inf", "wait must be at least 0, not inf"),
    ("min_free = 10", "min_free must be between 0 and 0.9, not 10"),
    ("direct = 1", "direct must be true or false, not the number 1"),
    ("compile = 'yes'", "compile must be true or false, not text"),
    ("store = 3", "store must be a list of texts, not the number 3"),
    ("store = ['a', 3]", "store must be a list of texts, but has the number 3 in it"),
    ("store = ''", "store has an empty place in it"),
    ("prefix = ['a']", "prefix must be text in quotes, not a list"),
    ("prefix = ''", "prefix is empty"),
    ('prefix = "a\\nb"', "prefix must be one line of text"),
    ("requirements = [['a']]", "requirements must be a list of texts, but has a list in it"),
    ("requirements = ['']", "requirements has an empty path in it"),
    ("cuda = 12.6", "cuda must be text in quotes, not the number 12.6"),
    ("cuda = 'cu126'", "cuda must be a release such as 12.6, not 'cu126'"),
    ("torch_index = 'cuda'", "torch_index must be auto, pypi or a URL, not 'cuda'"),
    ("index_url = 'pypi.org'", "index_url must be a URL, not 'pypi.org'"),
    ("extra_index_urls = ['x']", "extra_index_urls must be a list of URLs, but has 'x' in it"),
    ("installer = 'conda'", "installer must be one of auto, uv, pip, not 'conda'"),
    ("check = ['a-b']", "check: 'a-b' cannot be imported, it is not a module's name"),
    ("check = ['os; x']", "check: 'os; x' cannot be imported, it is not a module's name"),
    ("apt = ['FFmpeg']", "apt: 'FFmpeg' is not the name of an apt package"),
    ("apt = ['git', 'nvidia-open']", "apt: the apt package nvidia-open is a driver: the host"),
    ("trees = 3", "trees must be a list of texts, not the number 3"),
    ("trees = ['data']", "'data' is not of the form NAME=DIR"),
    ("trees = ['a=b', 'a=c']", "the tree a is given twice"),
    ("trees = { Data = 'x' }", "'Data' cannot be the name of a tree"),
    ("trees = { data = 3 }", "trees.data must be text in quotes, not the number 3"),
    ("toolkit = 'yes'", "toolkit must be true, false or the path of a CUDA tree, not 'yes'"),
    ("toolkit = 12", "toolkit must be true, false or the path of a CUDA tree, not the number 12"),
    ("without_gpu = 'gpu'", "without_gpu must be one of same, cpu, none, not 'gpu'"),
    ("flash_attn = ['latest']", "flash_attn: 'latest' is not a version such as 2.8.0.post2"),
    ("flash_attn = true", "flash_attn must be a list of texts, not the truth value true"),
    ("flash_attn_missing = 'ok'", "flash_attn_missing must be one of error, warning, not 'ok'"),
    ("toolkit_repository = 'x'", "toolkit_repository must be a URL, not 'x'"),
    ("key = 'a/b'\ntrees = { a = 'b' }", "'a/b' cannot be a key"),
    ("key = 'x-0123456789abcdef'", "'x-0123456789abcdef' looks like a computed key"),
    ("handler = { a = 1 }", "handler must be text in quotes, not a table"),
    ("handler = 1979-05-27", "handler must be text in quotes, not a date"),
]


class TestWrongValues:
    @pytest.mark.parametrize(("line", "problem"), WRONG)
    def test_of_the_file_are_named_with_its_line(self, line: str, problem: str) -> None:
        assert refused(f"\n# a comment\n{line}\n").startswith(f"cachepod.toml:3: {problem}")

    def test_inside_a_table_have_the_line_of_their_own(self) -> None:
        assert refused("[trees]\na = 'b'\nc = 3\n").startswith("cachepod.toml:3: trees.c must")
        assert refused("[trees]\na = 'b'\n\nC = '3'\n").startswith("cachepod.toml:4: 'C' cannot")

    def test_after_values_of_several_lines_have_the_right_line(self) -> None:
        text = (
            "packages = [\n  \"a ] = 1\",  # level = 1 ]\n  'b',\n]\n"
            'handler = """x\\\n  y"""\n\nlevel = "high"\n'
        )
        assert refused(text).startswith("cachepod.toml:8: level must be")

    @pytest.mark.parametrize(
        ("variable", "value", "problem"),
        [
            ("CACHEPOD_LEVEL", "high", "level must be a whole number, not 'high'"),
            ("CACHEPOD_TIMEOUT", "3m", "timeout must be a number, not '3m'"),
            ("CACHEPOD_MIN_FREE", "10", "min_free must be between 0 and 0.9, not 10"),
            ("CACHEPOD_DIRECT", "maybe", "direct must be 1 or 0, true or false, not 'maybe'"),
            ("CACHEPOD_TREES", "data", "'data' is not of the form NAME=DIR"),
            ("CACHEPOD_INSTALLER", "x", "installer must be one of auto, uv, pip, not 'x'"),
        ],
    )
    def test_of_a_variable_are_named_with_it(self, variable: str, value: str, problem: str) -> None:
        assert refused(environ={variable: value}).startswith(f"{variable}: {problem}")

    @pytest.mark.parametrize(
        ("flags", "problem"),
        [
            ({"level": 0}, "--level: level must be between 1 and 22, not 0"),
            ({"trees": ("data",)}, "--tree: 'data' is not of the form NAME=DIR"),
            ({"requirements": ("",)}, "-r: requirements has an empty path in it"),
            ({"store": ("",)}, "--store: store has an empty place in it"),
            ({"key": "a b", "trees": ("a=b",)}, "--key: 'a b' cannot be a key"),
        ],
    )
    def test_of_a_flag_are_named_with_it(self, flags: dict[str, object], problem: str) -> None:
        assert refused(flags=flags).startswith(problem)

    def test_that_hold_a_secret_do_not_show_it(self) -> None:
        for text in (
            "index_url = 'x https://me:hunter2@h.example'",
            "extra_index_urls = ['x https://me:hunter2@h.example']",
            "torch_index = 'x https://me:hunter2@h.example'",
            "trees = ['https://me:hunter2@h.example']",
        ):
            assert "hunter2" not in refused(text)


class TestImpossibleCombinations:
    @pytest.mark.parametrize(
        ("other", "value"),
        [("requirements", "['r.txt']"), ("packages", "['a']"), ("lock", "'l'"), ("apt", "['ab']")],
    )
    def test_a_key_of_ones_own_is_for_trees_alone(self, other: str, value: str) -> None:
        said = refused(f"trees = {{ a = 'b' }}\n{other} = {value}\n", {"key": "mine"})
        assert said.startswith(f"--key: a key of your own cannot be had together with {other}")
        assert f"({other}: cachepod.toml:2)" in said

    def test_a_key_of_ones_own_needs_a_tree(self) -> None:
        assert refused("key = 'mine'\n").startswith("cachepod.toml:1: a key of your own needs")

    def test_trees_may_not_overlap(self) -> None:
        said = refused(flags={"trees": ("a=/x/y", "b=/x/y/z")})
        assert said.startswith("--tree: the tree a (/x/y) and the tree b (/x/y/z) overlap")
        assert load(flags={"trees": ("a=/x/y", "b=/x/yz")}).trees.keys() == {"a", "b"}

    def test_a_tree_and_the_prefix_may_not_overlap_where_there_is_an_environment(self) -> None:
        text = "requirements = 'r.txt'\nprefix = 'app/venv'\n"
        said = refused(text, {"trees": ("app=app",)})
        assert "the tree app" in said
        assert "(prefix: cachepod.toml:2)" in said
        assert load("prefix = 'app/venv'\n", {"trees": ("app=app",)}).trees

    def test_links_do_not_hide_an_overlap(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        assert "overlap" in refused(flags={"trees": ("a=real", "b=link/inside")})

    def test_the_environment_s_own_name_is_no_other_tree_s(self) -> None:
        assert "environment's own" in refused("requirements = 'r.txt'\ntrees = { env = 'x' }\n")
        assert load("trees = { env = 'x' }\n").trees

    @pytest.mark.parametrize("store", ["venv/store", "file://{here}/venv", "."])
    def test_a_store_may_not_lie_in_what_it_stores_nor_hold_it(
        self, tmp_path: Path, store: str
    ) -> None:
        text = "requirements = 'r.txt'\nprefix = 'venv'\n"
        said = refused(text, {"store": (store.format(here=tmp_path),)})
        assert "overlap (store: --store)" in said

    def test_a_cache_may_not_lie_in_the_environment(self) -> None:
        said = refused("packages = ['a']\ncache_dir = '.venv/cache'\n")
        assert "overlap (cache_dir: cachepod.toml:2)" in said

    def test_the_prefix_cannot_be_the_root(self) -> None:
        assert refused("packages = ['a']\nprefix = '/'\n") == (
            "cachepod.toml:2: the prefix cannot be /"
        )


class TestPaths:
    def test_of_the_file_count_from_its_folder_and_others_from_the_working_directory(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "cachepod.toml").write_text(
            "store = 'store'\nrequirements = 'r.txt'\nlock = '../l'\n[trees]\nd = 'data'\n"
        )
        (tmp_path / "sub").mkdir()
        found = load_settings({"prefix": "venv"}, {"CACHEPOD_CACHE_DIR": "cache"}, tmp_path / "sub")
        assert found.store == (str(tmp_path / "store"),)
        assert found.requirements == (tmp_path / "r.txt",)
        assert found.lock == tmp_path.parent / "l"
        assert found.trees == {"d": tmp_path / "data"}
        assert found.prefix == tmp_path / "sub" / "venv"
        assert found.cache_dir == tmp_path / "sub" / "cache"

    def test_of_the_home_directory_are_expanded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/somebody")
        found = load("prefix = '~/venv'\nstore = '~/store'\ntrees = ['d=~/data']\n")
        assert found.prefix == Path("/home/somebody/venv")
        assert found.store == ("/home/somebody/store",)
        assert found.trees == {"d": Path("/home/somebody/data")}

    def test_urls_stay_as_they_are(self) -> None:
        found = load("store = ['file:///a', 's3://bucket/x']\nfind_links = ['https://h/x', 'w']\n")
        assert found.store == ("file:///a", "s3://bucket/x")
        assert found.find_links == ("https://h/x", str(Path.cwd() / "w"))

    def test_a_command_is_looked_for_and_a_program_is_a_path(self) -> None:
        assert load("python = 'python3.11'\n").python == "python3.11"
        assert load("python = 'bin/python'\n").python == str(Path.cwd() / "bin/python")


class TestVariables:
    def test_lists_are_split_at_blanks_and_tables_are_pairs(self) -> None:
        found = load(
            environ={
                "CACHEPOD_STORE": "/a  /b",
                "CACHEPOD_REQUIREMENTS": "a.txt\tb.txt",
                "CACHEPOD_TREES": "x=/x y=/y=z",
                "CACHEPOD_CHECK": "torch torch.nn",
            }
        )
        assert found.store == ("/a", "/b")
        assert found.requirements == (Path.cwd() / "a.txt", Path.cwd() / "b.txt")
        assert found.trees == {"x": Path("/x"), "y": Path("/y=z")}
        assert found.check == ("torch", "torch.nn")

    @pytest.mark.parametrize(
        ("value", "meaning"),
        [("1", True), ("TRUE", True), ("yes", True), ("on", True),
         ("0", False), ("False", False), ("no", False), ("OFF", False)],
    )  # fmt: skip
    def test_truth_has_its_usual_spellings(self, value: str, meaning: bool) -> None:
        assert load(environ={"CACHEPOD_DIRECT": value}).direct is meaning

    def test_numbers_are_read(self) -> None:
        found = load(environ={"CACHEPOD_TIMEOUT": "2.5", "CACHEPOD_THREADS": "4"})
        assert (found.timeout, found.threads) == (2.5, 4)

    def test_one_that_is_misspelled_is_told_and_not_refused(self) -> None:
        found = load(environ={"CACHEPOD_STROE": "/a", "CACHEPOD_XYZZY": "1"})
        assert found.notes == (
            "the variable CACHEPOD_STROE means nothing; did you mean CACHEPOD_STORE?",
        )

    def test_each_key_has_one(self, tmp_path: Path) -> None:
        values = {
            "level": "5", "threads": "2", "timeout": "9", "wait": "9", "min_free": "0.5",
            "direct": "0", "compile": "0", "installer": "pip", "cuda": "12.8",
            "torch_index": "pypi", "index_url": "https://h/", "extra_index_urls": "https://h/",
            "trees": "a=/b", "apt": "ffmpeg", "check": "os", "fill": "off",
            "keep_last": "3", "max_age": "30d", "max_size": "50GB", "keep": "a b", "grace": "5m",
            "without_gpu": "cpu", "toolkit": "1", "toolkit_repository": "https://h/",
            "flash_attn": "2.8.0", "flash_attn_sources": "/wheels", "flash_attn_build": "1",
            "flash_attn_missing": "warning", "apt_missing": "warning",
            "handler": "tts",
        }  # fmt: skip
        for name in {name for name, key in KEYS.items() if key.variable} - {"key"}:
            variable = f"CACHEPOD_{name.upper()}"
            found = load(environ={variable: values.get(name, "value")})
            assert found.sources[name] == f"environment {variable}"
            assert getattr(found, name) != getattr(load(), name), name


class TestShowing:
    def test_credentials_are_masked(self) -> None:
        found = load(
            "index_url = 'https://me:hunter2@h.example/simple'\n"
            "extra_index_urls = ['https://h.example/simple?token=hunter2']\n"
            "find_links = ['https://hunter2@h.example/links']\n"
            "torch_index = 'https://me:hunter2@h.example/cu126'\n"
            "packages = ['a @ git+https://hunter2@h.example/a']\n"
            "store = 's3://hunter2:x@bucket/y'\n"
        )
        shown = rows(found)
        assert "hunter2" not in "".join(f"{row.text}{row.value}" for row in shown)
        assert "hunter2" not in repr(found)
        values = {row.name: row.text for row in shown}
        assert values["index_url"] == "https://***@h.example/simple"
        assert values["extra_index_urls"] == "https://h.example/simple?token=***"
        assert found.index_url == "https://me:hunter2@h.example/simple", "the installer needs it"

    def test_every_key_has_a_row_with_its_value_and_source(self) -> None:
        found = load("store = ['/a', '/b']\nlevel = 4\n[trees]\nd = '/data'\n")
        by_name = {row.name: row for row in rows(found)}
        assert list(by_name) == list(KEYS)
        assert (by_name["store"].text, by_name["store"].value) == ("/a, /b", ["/a", "/b"])
        assert by_name["trees"].text == "d=/data"
        assert by_name["trees"].source == "cachepod.toml:3"
        assert (by_name["level"].text, by_name["level"].value) == ("4", 4)
        assert (by_name["threads"].text, by_name["direct"].text) == ("0", "yes")
        assert (by_name["timeout"].text, by_name["min_free"].text) == ("180", "0.1")
        assert (by_name["lock"].text, by_name["lock"].value) == ("", None)


class TestTheReference:
    TEXT = REFERENCE.read_text("utf-8")
    ROW = re.compile(r"\| \[`(\w+)`\]\(#(\w+)\) \|(.*)\|")

    def table(self) -> dict[str, list[str]]:
        found = {}
        for name, anchor, rest in self.ROW.findall(self.TEXT):
            assert name == anchor
            found[name] = [cell.strip() for cell in rest.split("|")]
        return found

    def test_its_table_lists_exactly_the_keys_in_their_order(self) -> None:
        assert list(self.table()) == list(KEYS)
        own = {"root", "sources", "file", "notes", "steps", "handler_unknown"}
        assert set(KEYS) == {each.name for each in dataclasses.fields(Settings)} - own

    def test_it_names_the_variables_and_the_flags(self) -> None:
        for name, (_, _, variables, flag, meaning) in self.table().items():
            others = KEYS[name].other_variables
            ours = [f"CACHEPOD_{name.upper()}"] if KEYS[name].variable else []
            assert re.findall(r"`(\w+)`", variables) == [*ours, *others]
            assert flag.strip("`").split(" ")[0] == KEYS[name].flag
            assert meaning

    def test_it_tells_the_defaults(self) -> None:
        defaults = {each.name: each.default for each in dataclasses.fields(Settings)}
        table = self.table()
        for name in ("level", "threads", "installer", "torch_index", "fill"):
            assert table[name][1] == f"`{defaults[name]}`"
        for name in ("timeout", "wait", "min_free"):
            assert float(table[name][1].strip("`")) == defaults[name]
        for name in ("direct", "compile"):
            assert table[name][1] == f"`{str(defaults[name]).lower()}`"
        for name, (_, default, *_) in table.items():
            assert (default == "none") == (
                defaults[name] in ("", (), None, dataclasses.MISSING)
                and name not in ("store", "prefix", "python", "index_url")
            ), name

    def test_each_key_has_a_section_with_an_example_of_it(self) -> None:
        sections = re.split(r"^### `(\w+)`$", self.TEXT, flags=re.MULTILINE)[1:]
        found = dict(zip(sections[::2], sections[1::2], strict=True))
        assert list(found) == list(KEYS)
        for name, text in found.items():
            example = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
            assert example, name
            assert name in loads(example[1])

    def test_every_example_of_it_loads(self) -> None:
        examples = re.findall(r"```toml\n(.*?)```", self.TEXT, re.DOTALL)
        assert len(examples) >= len(KEYS)
        for example in examples:
            name = "pyproject.toml" if "[tool.cachepod]" in example else "cachepod.toml"
            for stale in ("pyproject.toml", "cachepod.toml"):
                Path(stale).unlink(missing_ok=True)
            found = load(example, name=name)
            given_keys = [key for key, source in found.sources.items() if name in source]
            table = loads(example)
            table = table["tool"]["cachepod"] if name == "pyproject.toml" else table
            assert set(given_keys) == set(table)

    def test_the_error_that_it_shows_is_the_one_that_is_made(self) -> None:
        said = refused("# one\n# two\nrequirement = 'x'\n")
        assert said in self.TEXT


def test_help_for_a_mistake_is_not_imported_where_there_is_none() -> None:
    import subprocess

    code = (
        "import sys, pathlib\n"
        "from cachepod.environment.config import load_settings\n"
        "load_settings({'store': ('/a',)}, {'HOME': '/'}, pathlib.Path('/'))\n"
        "print([name for name in ('difflib', 'tomli', 'tomllib', 'packaging', 'subprocess', "
        "'shlex', 'shutil', 'uv', 'boto3', 'blake3', 'zstandard', 'tqdm') if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=REFERENCE.parents[1],
    )  # fmt: skip
    assert said.stdout.strip() == "[]"


bare = st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True)
written_values = st.sampled_from(
    ["1", "true", "'x'", '"a = [b]"', "'''\nx = 1\n[y]\n'''", '"""\n[z]\nq = 2 \\"\\"\\" \n"""',
     "[\n  1, # ] = [\n  2,\n]", "{ a = 'b', c = [1, 2] }", "[['a'], # x\n ['b']]", "1979-05-27",
     '"\\"]"', "[]", "1.5"]
)  # fmt: skip


@given(
    st.lists(st.tuples(st.lists(bare, min_size=1, max_size=2), written_values), max_size=6),
    st.lists(st.sampled_from(["", "# [comment] = 1", "  "]), max_size=3),
)
def test_the_line_of_a_key_is_the_one_it_is_written_in(
    wanted: list[tuple[list[str], str]], noise: list[str]
) -> None:
    lines: list[str] = []
    expected = {}
    for number, (path, value) in enumerate(wanted):
        # a number before each name keeps them apart
        names = tuple(f"k{number}{name}" for name in path)
        lines += noise
        expected[names] = len("\n".join(lines).split("\n")) + 1 if lines else 1
        lines += f"{'.'.join(names)} = {value}".split("\n")
    text = "\n".join(lines)
    loads(text)
    found = key_lines(text)
    assert {names: found[names] for names in expected} == expected


def test_the_line_of_a_table_is_the_one_of_its_header() -> None:
    text = 'a = 1\n\n[b.c] # x\nd = 2\n["e f"]\n\'g.h\' = 3\n[[i]]\n[ j . "k" ]\nl = 1'
    found = key_lines(text)
    assert found[("b", "c")] == 3
    assert found[("b", "c", "d")] == 4
    assert found[("e f", "g.h")] == 6
    assert found[("i",)] == 7
    assert found[("j", "k", "l")] == 9


def test_problems_carry_their_place() -> None:
    with pytest.raises(ConfigurationProblem) as caught:
        load("level = 99\n")
    assert caught.value.where == "cachepod.toml:1"
    assert caught.value.exit_code == 2
