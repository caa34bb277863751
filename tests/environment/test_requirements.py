"""Requirements files in every spelling that pip reads, and what of them decides the key."""

from __future__ import annotations

import os
import random
import string
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.markers import Marker
from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Reference

from cachepod.environment import pep508
from cachepod.environment.lines import logical_lines
from cachepod.environment.machine import interpreter
from cachepod.environment.requirements import Requirements, read_requirements
from cachepod.errors import ConfigurationProblem
from cachepod.system.urls import masked, plain

SHA = "a" * 64
OTHER_SHA = "b" * 64
LINUX = {
    "implementation_name": "cpython",
    "implementation_version": "3.10.13",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "6.1.0",
    "platform_system": "Linux",
    "platform_version": "#1 SMP",
    "python_full_version": "3.10.13",
    "python_version": "3.10",
    "sys_platform": "linux",
}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(
    text: str,
    folder: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    variables: Mapping[str, str] = LINUX,
) -> Requirements:
    path = (folder or Path.cwd()) / "requirements.txt"
    path.write_text(text)
    return read_requirements(
        [(path, "-r")], root=path.parent, variables=variables, environ=environ or {}
    )


def values(found: Requirements) -> dict[str, str]:
    return {each.name: each.value for each in found.lines}


class TestSpelling:
    def test_names_extras_and_specifiers_have_one_spelling(self) -> None:
        found = read("Foo_Bar.baz [ B , a_c ] >= 1.0 , <2\n")
        assert values(found) == {"foo-bar-baz": "[a-c,b]<2,>=1.0"}
        assert found.text == "foo-bar-baz[a-c,b]<2,>=1.0\n"

    def test_a_name_alone_is_any_version(self) -> None:
        assert values(read("einops")) == {"einops": "any version"}

    def test_comments_and_empty_lines_mean_nothing(self) -> None:
        text = "# first\n\ntorch==2.7.0  # pinned\n   # indented\n\t\nnumpy#not-a-comment\n"
        with pytest.raises(ConfigurationProblem, match=r"requirements.txt:6"):
            read(text)
        assert values(read(text.replace("numpy#", "numpy #"))) == {
            "torch": "==2.7.0",
            "numpy": "any version",
        }

    def test_a_backslash_continues_a_line_and_errors_name_its_first(self) -> None:
        assert values(read("torch\\\n==2.7.0, \\\n!=3\n")) == {"torch": "!=3,==2.7.0"}
        with pytest.raises(ConfigurationProblem, match=r"requirements.txt:2:"):
            read("numpy\ntorch \\\n == \\\n\n")

    def test_a_comment_ends_a_continued_line(self) -> None:
        assert logical_lines("a \\\n# b \\\nc\n") == [(1, "a"), (3, "c")]

    def test_windows_line_ends_and_a_byte_order_mark_make_no_difference(
        self, tmp_path: Path
    ) -> None:
        plain_text = read("torch==2.7.0\nnumpy\n")
        (tmp_path / "requirements.txt").write_bytes(b"\xef\xbb\xbftorch==2.7.0\r\nnumpy\r\n")
        assert (
            plain_text.lines
            == read_requirements(
                [(tmp_path / "requirements.txt", "-r")], root=tmp_path, variables=LINUX, environ={}
            ).lines
        )

    def test_a_file_that_is_not_utf_8_is_named_with_its_line(self, tmp_path: Path) -> None:
        (tmp_path / "bad.txt").write_bytes(b"torch\nnumpy\xff\n")
        with pytest.raises(ConfigurationProblem, match=r"bad.txt:2: .*UTF-8"):
            read_requirements(
                [(tmp_path / "bad.txt", "-r")], root=tmp_path, variables=LINUX, environ={}
            )

    @pytest.mark.parametrize(
        ("text", "pinned"),
        [
            ("torch==2.7.0", "2.7.0"),
            ("torch == 2.7.0+cu126", "2.7.0+cu126"),
            ("torch===2.7.0", "2.7.0"),
            ("torch==2.7.*", ""),
            ("torch>=2.7.0", ""),
            ("torch==2.7.0,!=2.6", ""),
            ("torch @ https://h.example/torch-2.7.0%2Bcu126-cp310-cp310-linux_x86_64.whl",
             "2.7.0+cu126"),
            ("https://h.example/torch-2.7.0-cp310-cp310-linux_x86_64.whl", "2.7.0"),
            ("https://h.example/torch-2.7.0.tar.gz", "2.7.0"),
        ],
    )  # fmt: skip
    def test_a_pin_is_one_version_and_no_range(self, text: str, pinned: str) -> None:
        assert read(text).pinned("torch") == pinned

    @pytest.mark.parametrize(
        "text",
        ["==2.0", "torch==", "torch=2.7", "torch 2.7", "torch[", "torch==2.7 numpy", "torch ;",
         "torch==x.y", "torch~=2", "torch>=2.*", "torch @", "@ https://x.example/", "a b",
         "torch; python_version", "torch; nonsense == '3'", "torch @ https://h.example/x ;"],
    )  # fmt: skip
    def test_what_is_no_requirement_is_named_with_file_and_line(self, text: str) -> None:
        with pytest.raises(ConfigurationProblem, match=r"requirements.txt:2: "):
            read(f"numpy\n{text}\n")


class TestMarkers:
    def test_a_line_that_does_not_apply_is_gone(self) -> None:
        found = read("a; sys_platform == 'win32'\nb; python_version < '3.11'\n")
        assert values(found) == {"b": "any version"}
        assert found.text == "b\n"

    def test_they_are_judged_for_the_target_and_not_for_the_running_interpreter(self) -> None:
        text = "tomli>=2; python_version < '3.11'\n"
        newer = {**LINUX, "python_version": "3.12", "python_full_version": "3.12.1"}
        assert values(read(text)) == {"tomli": ">=2"}
        assert values(read(text, variables=newer)) == {}

    def test_one_that_applies_is_as_if_it_had_no_marker(self) -> None:
        assert read("a==1 ; os_name == 'posix'").lines == read("a==1").lines

    def test_a_url_needs_a_blank_before_its_marker(self) -> None:
        assert values(read("a @ https://h.example/x;y")) == {"a": "@ https://h.example/x;y"}
        assert values(read("a @ https://h.example/x ; os_name == 'nt'")) == {}

    def test_constraints_and_local_paths_have_them_too(self, tmp_path: Path) -> None:
        (tmp_path / "c.txt").write_text("a<2; os_name == 'nt'\nb<2; os_name == 'posix'\n")
        found = read("-c c.txt\n./nowhere ; os_name == 'nt'\n")
        assert [each.name for each in found.constraints] == ["b"]
        assert found.lines == ()

    def test_an_extra_that_nobody_asked_for_is_none(self) -> None:
        assert values(read("a; extra == 'gpu'\n")) == {}


class TestNestedFiles:
    def test_files_are_read_from_the_including_one_on(self, tmp_path: Path) -> None:
        (tmp_path / "more" / "deep").mkdir(parents=True)
        (tmp_path / "more" / "base.txt").write_text("-r deep/last.txt\nnumpy==2.0\n")
        (tmp_path / "more" / "deep" / "last.txt").write_text("-c../limits.txt\neinops\n")
        (tmp_path / "more" / "limits.txt").write_text("scipy<2\n")
        found = read("--requirement=more/base.txt\ntorch\n")
        assert values(found) == {
            "einops": "any version", "numpy": "==2.0", "torch": "any version",
        }  # fmt: skip
        assert [(each.name, each.value) for each in found.constraints] == [("scipy", "<2")]
        assert [path.name for path in found.files] == [
            "requirements.txt", "base.txt", "last.txt", "limits.txt",
        ]  # fmt: skip

    def test_what_a_constraints_file_includes_constrains(self, tmp_path: Path) -> None:
        (tmp_path / "c.txt").write_text("-r d.txt\n")
        (tmp_path / "d.txt").write_text("numpy<3\n")
        found = read("-c c.txt\nnumpy\n")
        assert found.text == "numpy\n"
        assert found.constraints_text == "numpy<3\n"

    def test_a_circle_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("numpy\n-r b.txt\n")
        (tmp_path / "b.txt").write_text("-r ./a.txt\n")
        with pytest.raises(
            ConfigurationProblem, match=r"b.txt:1: .*circle: a.txt -> b.txt -> a.txt"
        ):
            read("-r a.txt\n")

    def test_one_file_included_twice_is_no_circle(self, tmp_path: Path) -> None:
        for name in ("a.txt", "b.txt"):
            (tmp_path / name).write_text("-r base.txt\n")
        (tmp_path / "base.txt").write_text("numpy\n")
        assert values(read("-r a.txt\n-r b.txt\n")) == {"numpy": "any version"}

    def test_a_missing_file_is_named_where_it_is_included(self) -> None:
        with pytest.raises(ConfigurationProblem, match=r"requirements.txt:2: .*gone.txt does not"):
            read("numpy\n-r gone.txt\n")

    def test_a_directory_is_not_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        with pytest.raises(ConfigurationProblem, match=r"requirements.txt:1: .*cannot be read"):
            read("-r folder\n")

    def test_a_file_in_the_network_is_refused(self) -> None:
        with pytest.raises(ConfigurationProblem, match="this machine only") as caught:
            read("-r https://me:hunter2@h.example/r.txt\n")
        assert "hunter2" not in str(caught.value)


class TestOptions:
    def test_options_of_indexes_are_understood_in_every_spelling(self, tmp_path: Path) -> None:
        (tmp_path / "wheels").mkdir()
        found = read(
            "-i https://one.example/simple\n"
            "--extra-index-url=https://two.example --extra-index-url https://three.example\n"
            "-f wheels\n--find-links 'https://links.example/page'\n--pre\n--require-hashes\n"
        )
        assert found.index_url == "https://one.example/simple"
        assert found.extra_index_urls == ("https://two.example", "https://three.example")
        assert found.find_links == (str(tmp_path / "wheels"), "https://links.example/page")
        assert found.pre
        assert found.require_hashes

    def test_lists_of_binaries_add_up_as_in_pip(self) -> None:
        found = read("--no-binary Foo_x,bar\n--only-binary=:all:\n--no-binary baz\n")
        assert found.only_binary == (":all:",)
        assert found.no_binary == ("baz",)
        assert read("--no-binary a,b\n--no-binary :none:\n").no_binary == ()
        assert read("--no-binary a,b\n--only-binary a\n").no_binary == ("b",)

    @pytest.mark.parametrize(
        "line",
        ["--trusted-host h.example", "--no-index", "--prefer-binary", "-x", "--indexurl x",
         "numpy --config-settings a=b", "numpy --global-option=x"],
    )  # fmt: skip
    def test_any_other_option_is_named_with_file_and_line(self, line: str) -> None:
        with pytest.raises(
            ConfigurationProblem, match=r"requirements.txt:2: the option .* is not supported"
        ):
            read(f"numpy\n{line}\n")

    @pytest.mark.parametrize("line", ["--index-url", "-r", "--no-binary"])
    def test_an_option_without_its_value_is_named(self, line: str) -> None:
        with pytest.raises(ConfigurationProblem, match=r"requirements.txt:1: .*has no value"):
            read(line)

    def test_quotes_that_do_not_match_are_named(self) -> None:
        with pytest.raises(ConfigurationProblem, match=r"requirements.txt:1: .*quotes"):
            read("--find-links 'abc\n")

    def test_links_that_are_not_there_are_named(self) -> None:
        with pytest.raises(ConfigurationProblem, match=r"requirements.txt:1: .*not exist"):
            read("-f wheels\n")


class TestHashes:
    def test_they_are_kept_for_the_installer_and_count(self) -> None:
        found = read(f"a==1 \\\n  --hash=sha256:{SHA} \\\n  --hash sha256:{OTHER_SHA}\n")
        assert found.text == f"a==1 --hash=sha256:{SHA} --hash=sha256:{OTHER_SHA}\n"
        assert found.lines[0].hashed
        assert found.lines[0].value != read(f"a==1 --hash=sha256:{SHA}").lines[0].value

    def test_their_order_and_case_and_repetition_make_no_difference(self) -> None:
        one = read(f"a==1 --hash=sha256:{SHA} --hash=sha256:{OTHER_SHA}")
        other = read(
            f"a==1 --hash=sha256:{OTHER_SHA.upper()} --hash=sha256:{SHA} --hash=sha256:{SHA}"
        )
        assert one.lines == other.lines

    @pytest.mark.parametrize("text", ["sha256:abc", "md5:" + "a" * 32, "", "sha256:" + "x" * 64])
    def test_what_is_no_hash_is_named(self, text: str) -> None:
        with pytest.raises(ConfigurationProblem, match=r"requirements.txt:1: .*not a hash"):
            read(f"a==1 --hash={text}")


def project(root: Path, name: str = "thing") -> Path:
    (root / "src" / name).mkdir(parents=True)
    (root / "pyproject.toml").write_text(f"[project]\nname = '{name}'\nversion = '1'\n")
    (root / "src" / name / "__init__.py").write_text("x = 1\n")
    (root / "run.sh").write_text("#!/bin/sh\n")
    return root


class TestLocalProjects:
    def test_one_has_the_same_value_wherever_it_lies(self, tmp_path: Path) -> None:
        project(tmp_path / "a" / "thing")
        project(tmp_path / "b" / "other")
        one = read("./thing\n", tmp_path / "a")
        other = read("./other\n", tmp_path / "b")
        assert values(one) == values(other)
        assert one.text == f"{tmp_path}/a/thing\n"

    def test_an_editable_one_counts_by_content_and_place(self, tmp_path: Path) -> None:
        project(tmp_path / "a" / "thing")
        project(tmp_path / "b" / "thing")
        one, other = read("-e ./thing\n", tmp_path / "a"), read("-e thing\n", tmp_path / "b")
        assert one.text == f"-e {tmp_path}/a/thing\n"
        assert values(one) != values(other)
        assert str(tmp_path / "a" / "thing") in values(one)["thing"]

    def test_extras_are_kept(self, tmp_path: Path) -> None:
        project(tmp_path / "thing")
        for prefix in ("", "-e "):
            found = read(f"{prefix}./thing[Gpu,audio]\n")
            assert found.text == f"{prefix}{tmp_path}/thing[audio,gpu]\n"
            assert "[audio,gpu]" in found.lines[0].value

    @pytest.mark.parametrize(
        "change",
        ["src/thing/__init__.py", "src/thing/new.py", "pyproject.toml", "src/thing/build/x.py"],
    )
    def test_a_changed_or_added_source_counts(self, tmp_path: Path, change: str) -> None:
        project(tmp_path / "thing")
        before = values(read("./thing\n"))
        path = tmp_path / "thing" / change
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as stream:
            stream.write("# more\n")
        assert values(read("./thing\n")) != before

    def test_a_removed_or_renamed_file_and_an_executable_bit_count(self, tmp_path: Path) -> None:
        root = project(tmp_path / "thing")
        seen = [values(read("./thing\n"))]
        (root / "run.sh").chmod(0o755)
        seen.append(values(read("./thing\n")))
        (root / "run.sh").rename(root / "walk.sh")
        seen.append(values(read("./thing\n")))
        (root / "walk.sh").unlink()
        seen.append(values(read("./thing\n")))
        assert len({value["thing"] for value in seen}) == 4

    @pytest.mark.parametrize(
        "leftover",
        [".git/HEAD", "src/thing/__pycache__/a.cpython-310.pyc", "src/thing/b.pyc", "build/x",
         "dist/thing-1.tar.gz", "src/thing.egg-info/PKG-INFO", "thing.egg-info/PKG-INFO",
         ".hg/x", "src/thing/fast.cpython-310-x86_64-linux-gnu.so", "src/thing/fast.abi3.so"],
    )  # fmt: skip
    def test_what_tools_leave_behind_does_not_count(self, tmp_path: Path, leftover: str) -> None:
        root = project(tmp_path / "thing")
        before = values(read("./thing\n"))
        (root / leftover).parent.mkdir(parents=True, exist_ok=True)
        (root / leftover).write_text("left behind")
        assert values(read("./thing\n")) == before

    def test_an_environment_or_a_cache_inside_does_not_count(self, tmp_path: Path) -> None:
        root = project(tmp_path / "thing")
        before = values(read("./thing\n"))
        for folder, sign in (("my-venv", "pyvenv.cfg"), (".mypy_cache", "CACHEDIR.TAG")):
            (root / folder / "deep").mkdir(parents=True)
            (root / folder / sign).write_text("sign")
            (root / folder / "deep" / "file").write_text("x")
        assert values(read("./thing\n")) == before

    def test_the_environment_to_be_does_not_count_even_half_made(self, tmp_path: Path) -> None:
        root = project(tmp_path / "thing")

        def digest() -> dict[str, str]:
            return values(
                read_requirements(
                    [],
                    ["./thing"],
                    root=tmp_path,
                    variables=LINUX,
                    environ={},
                    leave_out=[root / ".venv"],
                )
            )

        before = digest()
        (root / ".venv").mkdir()
        (root / ".venv" / "half").write_text("made")
        assert digest() == before

    def test_a_link_to_a_file_counts_as_the_file(self, tmp_path: Path) -> None:
        root = project(tmp_path / "thing")
        (tmp_path / "shared.py").write_text("1")
        (root / "shared.py").symlink_to(tmp_path / "shared.py")
        (root / "dangling").symlink_to("nowhere")
        before = values(read("./thing\n"))
        (tmp_path / "shared.py").write_text("2")
        assert values(read("./thing\n")) != before

    def test_the_times_and_the_order_of_files_do_not_count(self, tmp_path: Path) -> None:
        root = project(tmp_path / "thing")
        before = values(read("./thing\n"))
        for path in root.rglob("*"):
            os.utime(path, (1, 1))
        text = (root / "run.sh").read_text()
        (root / "run.sh").unlink()
        (root / "run.sh").write_text(text)
        assert values(read("./thing\n")) == before

    def test_names_that_are_not_utf_8_are_digested(self, tmp_path: Path) -> None:
        root = project(tmp_path / "thing")
        before = values(read("./thing\n"))
        with open(os.fsencode(root) + b"/\xff\xfe", "w") as stream:
            stream.write("x")
        assert values(read("./thing\n")) != before

    def test_a_directory_that_is_no_project_is_refused_and_not_read(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        for line in ("./data", "-e data", "/", ".."):
            with pytest.raises(ConfigurationProblem, match=r"requirements.txt:1: .*no Python proj"):
                read(line)

    def test_one_that_does_not_exist_is_named(self) -> None:
        for line in ("./gone", "-e gone/", "gone.whl", "x @ file:///gone/x.whl"):
            with pytest.raises(ConfigurationProblem, match=r"requirements.txt:1: .*does not exist"):
                read(line)

    def test_a_path_from_the_working_directory_is_found_as_pip_finds_it(
        self, tmp_path: Path
    ) -> None:
        project(tmp_path / "thing")
        (tmp_path / "deps").mkdir()
        assert read("./thing\n", tmp_path / "deps").text == f"{tmp_path}/thing\n"

    def test_a_path_with_a_blank_becomes_a_url_that_installers_read(self, tmp_path: Path) -> None:
        project(tmp_path / "my thing")
        assert read("./my thing\n").text == f"file://{tmp_path}/my%20thing\n"


class TestLocalArchives:
    WHEEL = "thing-1.5-py3-none-any.whl"

    @pytest.mark.parametrize(
        "line", [WHEEL, f"./{WHEEL}", f"wheels/../{WHEEL}", "file://{here}/" + WHEEL]
    )
    def test_a_wheel_counts_by_its_bytes_in_every_spelling(self, tmp_path: Path, line: str) -> None:
        (tmp_path / "wheels").mkdir()
        (tmp_path / self.WHEEL).write_bytes(b"wheel")
        before = read(line.format(here=tmp_path))
        assert list(values(before)) == ["thing"]
        assert before.pinned("thing") == "1.5"
        (tmp_path / self.WHEEL).write_bytes(b"other")
        after = read(line.format(here=tmp_path))
        assert values(after) != values(before)
        assert str(tmp_path) not in str(values(after))

    def test_by_name_and_url_it_keeps_the_name(self, tmp_path: Path) -> None:
        (tmp_path / "t-2.tar.gz").write_bytes(b"source")
        found = read(f"Thing[x] @ file://{tmp_path}/t-2.tar.gz\n")
        assert list(values(found)) == ["thing"]
        assert found.text == f"thing[x] @ file://{tmp_path}/t-2.tar.gz\n"
        assert found.lines == read(f"Thing[x]@file://{tmp_path}/t-2.tar.gz\n").lines

    def test_it_cannot_be_editable(self, tmp_path: Path) -> None:
        (tmp_path / self.WHEEL).write_bytes(b"wheel")
        for line in (
            f"-e ./{self.WHEEL}",
            "-e x @ git+https://h.example/x",
            "-e https://h.example/x.whl",
        ):
            with pytest.raises(ConfigurationProblem, match=r"requirements.txt:1: .*editable"):
                read(line)


SECRETS = ["hunter2", "s3cr3t", "ghp_abcdef"]


class TestSecrets:
    @pytest.mark.parametrize(
        "line",
        [
            "a @ https://me:hunter2@h.example/a-1.tar.gz",
            "a @ git+https://ghp_abcdef@github.com/o/a@v1",
            "git+https://me:hunter2@h.example/o/a.git@v1#egg=a",
            "-e git+https://oauth2:s3cr3t@h.example/o/a.git#egg=a&subdirectory=x",
            "https://h.example/a-1-py3-none-any.whl?token=hunter2&file=a",
            "a @ https://h.example/a.whl?X-Amz-Signature=s3cr3t&X-Amz-Credential=hunter2",
            "a @ https://${PIP_TOKEN}@h.example/a.whl",
            "a @ https://h.example/${DEPLOY_TOKEN}/a.whl",
            "https://me:hun@ter2hunter2@h.example/a-1-py3-none-any.whl",
        ],
    )
    def test_they_are_in_the_installer_s_line_and_nowhere_else(self, line: str) -> None:
        environ = {"PIP_TOKEN": "hunter2", "DEPLOY_TOKEN": "s3cr3t"}
        found = read(line, environ=environ)
        assert any(secret in found.text for secret in SECRETS)
        assert not any(secret in values(found)["a"] for secret in SECRETS)
        assert not any(secret in repr(found) for secret in SECRETS)

    def test_a_rotated_token_is_no_other_requirement(self) -> None:
        line = "a @ git+https://${TOKEN}@h.example/o/a@v1"
        one, other = read(line, environ={"TOKEN": "1"}), read(line, environ={"TOKEN": "2"})
        assert values(one) == values(other) == values(read("a @ git+https://h.example/o/a@v1"))

    def test_a_variable_that_is_no_secret_counts(self) -> None:
        line = "a @ https://h.example/${VERSION}/a.whl"
        one, other = read(line, environ={"VERSION": "1"}), read(line, environ={"VERSION": "2"})
        assert values(one) != values(other)
        assert values(read("a==${VERSION}", environ={"VERSION": "3.1"})) == {"a": "==3.1"}

    def test_a_variable_that_is_not_set_stays_as_it_is_written(self) -> None:
        assert values(read("a @ https://h.example/${NOT_SET}/a.whl")) == {
            "a": "@ https://h.example/${NOT_SET}/a.whl"
        }

    @pytest.mark.parametrize(
        "line",
        ["a b @ https://me:hunter2@h.example/x", "a @ https://me:hunter2@h.example/x y",
         "a == https://me:hunter2@h.example/x", "--weird=https://me:hunter2@h.example/x",
         "a; b @ https://h.example/?token=hunter2"],
    )  # fmt: skip
    def test_an_error_does_not_quote_them(self, line: str) -> None:
        with pytest.raises(ConfigurationProblem) as caught:
            read(line)
        assert "hunter2" not in f"{caught.value} {caught.value.hint} {caught.value!r}"

    def test_urls_lose_them_for_the_key_and_show_that_there_were_some(self) -> None:
        url = "HTTPS://me:p@ss@H.example:8080/simple/?token=x&page=2&author=y#f"
        assert plain(url) == "https://h.example:8080/simple/?page=2&author=y#f"
        assert masked(f"see {url}") == (
            "see HTTPS://***@H.example:8080/simple/?token=***&page=2&author=y#f"
        )
        assert masked("a==1 and b") == "a==1 and b"


def test_a_line_given_twice_is_one_requirement() -> None:
    assert len(read("a==1\nA == 1 # again\n").lines) == 1
    assert len(read("a==1\na==2\n").lines) == 2


def test_inline_packages_are_lines_from_the_configuration_s_folder_on(tmp_path: Path) -> None:
    project(tmp_path / "app" / "thing")
    found = read_requirements(
        [], ["torch==2.7.0", "./thing"], root=tmp_path / "app", packages_where="cachepod.toml:2",
        variables=LINUX, environ={},
    )  # fmt: skip
    assert list(values(found)) == ["torch", "thing"]
    with pytest.raises(ConfigurationProblem, match=r"^cachepod.toml:2: 'torch=2'"):
        read_requirements(
            [], ["torch=2"], root=tmp_path, packages_where="cachepod.toml:2",
            variables=LINUX, environ={},
        )  # fmt: skip


def test_flat_text_reads_back_as_the_same_requirements(tmp_path: Path) -> None:
    project(tmp_path / "thing")
    text = (
        f"Torch[x]==2.7.0 --hash=sha256:{SHA}\n-e ./thing[y]\n./thing\nnumpy<3,>=1\n"
        "b @ https://u:p@h.example/b-1.tar.gz\ngit+https://h.example/c@v1#egg=c\n"
        "tomli; python_version < '3.11'\n"
    )
    first = read(text)
    (tmp_path / "elsewhere").mkdir()
    second = read(first.text, tmp_path / "elsewhere")
    assert values(first) == values(second)
    assert first.text == second.text


# what the invariances are tried on: lines whose meaning is fixed, and noise around them

NAMES = ["torch", "numpy", "transformers", "python-dateutil", "zope.interface", "Flask"]
blanks = st.text(" \t", max_size=3)
versions = st.from_regex(r"(0|[1-9][0-9]?)(\.(0|[1-9][0-9]?)){0,3}", fullmatch=True)
operators = st.sampled_from(["==", "!=", ">=", "<=", ">", "<"])
clauses = st.tuples(operators, versions)
requirement = st.tuples(
    st.sampled_from(NAMES),
    st.lists(st.sampled_from(["gpu", "audio", "dev-tools"]), max_size=2, unique=True),
    st.lists(clauses, max_size=3, unique=True),
)


def respelled(name: str, chance: random.Random) -> str:
    separators = {"-": "-_.", "_": "-_.", ".": "-_."}
    letters = [chance.choice(separators.get(letter, letter)) for letter in name]
    return "".join(chance.choice([letter.lower(), letter.upper()]) for letter in letters)


def spelled(wanted: tuple[str, list[str], list[tuple[str, str]]], chance: random.Random) -> str:
    """One of the many spellings of a requirement."""

    def blank() -> str:
        return " " * chance.randrange(3)

    name, extras, found = wanted
    extras, found = list(extras), list(found)
    chance.shuffle(extras)
    chance.shuffle(found)
    text = respelled(name, chance)
    if extras:
        inside = f"{blank()},{blank()}".join(respelled(extra, chance) for extra in extras)
        text += f"{blank()}[{blank()}{inside}{blank()}]"
    joined = f"{blank()},{blank()}".join(f"{op}{blank()}{version}" for op, version in found)
    text += f"{blank()}({joined})" if found and chance.random() < 0.3 else blank() + joined
    if chance.random() < 0.3 and found:
        place = text.index(found[0][0][0])
        text = f"{text[:place]}\\\n{text[place:]}"
    if chance.random() < 0.3:  # not a backslash at its end: that would continue the line
        text += f"  #{''.join(chance.choices(string.printable[:90], k=8))}."
    return blank() + text


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(requirement, max_size=6), st.integers(0, 2**32))
def test_order_comments_blanks_case_and_continued_lines_make_no_difference(
    tmp_path: Path,
    wanted: list[tuple[str, list[str], list[tuple[str, str]]]],
    seed: int,
) -> None:
    chance = random.Random(seed)
    reference = "".join(
        f"{name}{'[' + ','.join(extras) + ']' if extras else ''}"
        f"{','.join(op + version for op, version in found)}\n"
        for name, extras, found in wanted
    )
    lines = [spelled(each, chance) for each in wanted]
    noise = ["", "# a comment", "   ", "\t# torch==1.0", "# ends in a backslash \\"]
    lines += chance.choices(noise, k=4)
    chance.shuffle(lines)
    end = chance.choice(["\n", "\r\n"])

    def canonical(text: str) -> set[tuple[str, str]]:
        return {(each.name, each.value) for each in read(text, tmp_path).lines}

    assert canonical(end.join("\n".join(lines).split("\n")) + end) == canonical(reference)


exotic = st.from_regex(
    r"(1!)?[0-9]{1,2}(\.[0-9]{1,2}){0,2}(a1|b2|rc3|RC1|-1|\.post4|dev|\.dev5|alpha)?"
    r"(\+[a-z0-9]{1,4}(\.[0-9])?)?(\.\*)?",
    fullmatch=True,
)


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from([*NAMES, "a", "-a", "a-", "A_b.c", "é", "a b"]),
    st.sampled_from(["", "[]", "[x]", "[ x , Y_z ]", "[x", "[,]", "[x,]", "[-x]"]),
    blanks,
    st.lists(
        st.tuples(st.sampled_from(["==", "!=", ">=", "<", "~=", "===", "=", ""]), blanks, exotic),
        max_size=2,
    ),
    st.sampled_from(["", "()", ",", "(", " ;", "; os_name == 'posix'", " @ https://h.example/x"]),
)
def test_the_quick_reading_accepts_and_means_exactly_what_packaging_does(
    name: str, extras: str, blank: str, found: list[tuple[str, str, str]], end: str
) -> None:
    text = f"{name}{blank}{extras}{','.join(''.join(each) for each in found)}{end}"
    try:
        reference = Reference(text)
    except InvalidRequirement:
        with pytest.raises(pep508.Malformed):
            pep508.parse(text)
        return
    wanted = pep508.parse(text)
    assert wanted.name == pep508.normalized(reference.name)
    assert wanted.extras == tuple(sorted(map(pep508.normalized, reference.extras)))
    assert wanted.url == (reference.url or "")
    assert wanted.clauses == tuple(
        sorted({each.operator + each.version.lower() for each in reference.specifier})
    )
    assert bool(wanted.marker) == bool(reference.marker)
    if wanted.marker:
        assert Marker(wanted.marker) == reference.marker


@settings(max_examples=200, deadline=None)
@given(st.text(string.printable, max_size=60))
def test_any_text_is_read_or_refused_with_its_place(tmp_path_factory: pytest.TempPathFactory,
                                                    text: str) -> None:  # fmt: skip
    folder = tmp_path_factory.getbasetemp()
    try:
        read(text, folder)
    except ConfigurationProblem as problem:
        place = problem.where
    else:
        return
    name, _, number = place.rpartition(":")
    assert name.endswith("requirements.txt")
    assert 1 <= int(number) <= text.count("\n") + text.count("\r") + 60


def test_markers_of_the_running_interpreter_are_judged_as_packaging_judges_them() -> None:
    variables = interpreter().markers
    for text in (
        "python_version >= '3.10'", "python_version < '3.10'", "sys_platform == 'linux'",
        "platform_machine == 'x86_64' and os_name != 'nt'", "implementation_name in 'cpython pypy'",
        "platform_release >= '5.4.0-generic'", "python_full_version == '3.10.*'",
    ):  # fmt: skip
        assert pep508.applies(text, variables) == Marker(text).evaluate()
