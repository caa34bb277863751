"""An apply that is killed, or whose disk fails, at every system call in turn."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cachepod.errors import CachepodError, SpaceExhausted
from cachepod.system.base import installed
from cachepod.system.capture import capture
from cachepod.system.layer import applied, apply
from cachepod.system.merge import TEMPORARY
from tests.support.dpkg import (
    base_root,
    captured,
    carry,
    content_of,
    install_into,
    lay,
    seen_before,
)
from tests.support.faults import failing, in_a_child
from tests.support.syscalls import PLAUSIBLE, faults

# Without reads of what is there: they are asked everywhere, and change nothing.
WRITES = (
    *("open", "write", "rename", "link", "symlink", "mkdir", "unlink", "rmdir", "chmod", "utime"),
    *("fsync", "replace"),
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with ``source``, ``target`` and what they are to be, made once."""
    top = tmp_path_factory.mktemp("roots")
    captured(top / "source")
    carry(top / "source", base_root(top / "target"))
    return top


def fresh(template: Path, tmp_path: Path) -> Path:
    """A new target; by cp, for that keeps hard links."""
    place = tmp_path / "target"
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run(["cp", "-a", template / "target", place], check=True)
    return place


def told_by(root: Path) -> CachepodError | None:
    """The error that an apply ends with; none that is a bug."""
    try:
        apply(root)
    except CachepodError as error:
        return error
    return None


def is_whole(root: Path, template: Path) -> bool:
    return content_of(root) == content_of(template / "source")


@pytest.mark.slow
def test_killed_before_any_write_the_next_apply_completes_it(
    template: Path, tmp_path: Path
) -> None:
    committed = killed = 0
    for call in range(10_000):
        root = fresh(template, tmp_path)

        def decide(name: str, number: int, call: int = call) -> int:
            if number == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return 0

        def attempt(root: Path = root, decide: Callable[[str, int], int] = decide) -> None:
            with faults(WRITES, decide):
                apply(root)

        if in_a_child(attempt) == 0:
            break
        killed += 1
        found = installed(root)
        assert found is not None
        if found.version("tool"):  # past the commit point everything is there
            committed += 1
            assert content_of(root) == content_of(template / "source")
        apply(root)
        assert is_whole(root, template)
        assert applied(root)
    assert killed > 60
    assert committed >= 1


@pytest.mark.parametrize("function", WRITES)
def test_an_error_of_any_write_is_told_and_the_next_apply_completes_it(
    template: Path, tmp_path: Path, function: str
) -> None:
    codes = PLAUSIBLE.get(function, (errno.EIO,))
    for number in range(1000):
        code = codes[number % len(codes)]
        root = fresh(template, tmp_path)

        def decide(name: str, call: int, number: int = number, code: int = code) -> int:
            return code if call == number else 0

        with faults((function,), decide) as log:
            told = told_by(root)
        if told is not None and code in (errno.ENOSPC, errno.EDQUOT):
            assert isinstance(told, SpaceExhausted)
        if len(log) <= number:
            break
        apply(root)
        assert is_whole(root, template)
    assert number > 0


def test_without_hard_links_everything_is_copied(template: Path, tmp_path: Path) -> None:
    root = fresh(template, tmp_path)

    def from_the_tree(source: str, *_: object, **__: object) -> bool:
        return "cachepod/system" in source

    with failing("link", errno.EPERM, when=from_the_tree):
        apply(root)
    assert is_whole(root, template)


def test_what_a_killed_apply_left_under_another_name_is_gone(
    template: Path, tmp_path: Path
) -> None:
    root = fresh(template, tmp_path)
    with failing("rename", errno.EIO, calls=".....E"), pytest.raises(CachepodError):
        apply(root)
    assert any(TEMPORARY in path for path in content_of(root))
    apply(root)
    assert not any(TEMPORARY in path for path in content_of(root))


@pytest.mark.parametrize("there", [True, False])
def test_links_and_directories_take_each_others_place(tmp_path: Path, there: bool) -> None:
    """As packages do that move a directory and leave a link, or the other way round."""

    def change(root: Path) -> None:
        install_into(root)
        (root / "usr/share/old/file").unlink()
        (root / "usr/share/old").rmdir()
        (root / "usr/share/old").symlink_to("tool")
        (root / "usr/share/link").unlink()
        lay(root, {"usr/share/link/file": "now a directory\n"})

    def prepared(root: Path) -> Path:
        base_root(root)
        lay(root, {"usr/share/old/file": "old\n"})
        (root / "usr/share/link").symlink_to("old")
        return root

    source = prepared(tmp_path / "source")
    before = seen_before(source)
    change(source)
    capture(source, before, asked=("tool",), avoid=frozenset(), key="key")
    target = carry(source, prepared(tmp_path / "target"))
    if not there:
        lay(target, {"usr/share/old/mine": "mine\n"})
        with pytest.raises(CachepodError, match="with files of its own"):
            apply(target)
        return
    apply(target)
    assert content_of(target) == content_of(source)
