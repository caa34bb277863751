"""Whatever an installation makes of a base: captured, carried and put in place it is the same."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachepod.system.capture import capture
from cachepod.system.layer import apply
from cachepod.system.look import load, save
from tests.support.dpkg import base_root, carry, content_of, lay, seen_before, stanza

NAMES = st.sampled_from(["a", "b", "c", "\udce4", "d e", "\n"])
FOLDERS = st.sampled_from(["usr/lib", "usr/lib/a", "etc", "etc/b", "var/lib/x", "opt/c"])
FILES = st.tuples(
    st.just("file"), st.sampled_from(["", "1", "22", "x" * 5000]), st.sampled_from([0o644, 0o711])
)
LINKS = st.tuples(st.just("link"), st.sampled_from(["a", "../b", "/nowhere"]), st.just(0))
EMPTY = st.tuples(st.just("folder"), st.just(""), st.sampled_from([0o755, 0o700, 0o1777]))
NODE = FILES | LINKS | EMPTY
TREES = st.dictionaries(st.builds("{}/{}".format, FOLDERS, NAMES), NODE, max_size=8)
Tree = Mapping[str, tuple[str, str, int]]


def make(root: Path, tree: Tree) -> None:
    """Bring *tree* about, as dpkg would: what is there is replaced by something new."""
    for name, (kind, text, mode) in sorted(tree.items()):
        path = root / name
        if any(part in tree and tree[part][0] != "folder" for part in parents(name)):
            continue
        for above in parents(name):
            if os.path.lexists(root / above) and not (root / above).is_dir():
                (root / above).unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            continue
        if kind == "folder":
            path.unlink(missing_ok=True)
            path.mkdir()
            path.chmod(mode)
        else:
            path.unlink(missing_ok=True)
            if kind == "link":
                path.symlink_to(text)
            else:
                path.write_text(text)
                path.chmod(mode)


def parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def remove(root: Path, names: list[str]) -> None:
    for name in names:
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif os.path.lexists(path):
            path.unlink()


@given(base=TREES, new=TREES, gone=st.lists(st.builds("{}/{}".format, FOLDERS, NAMES), max_size=3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_root_is_what_the_other_became(base: Tree, new: Tree, gone: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        roots = [base_root(Path(folder, name)) for name in ("one", "other")]
        for root in roots:
            make(root, base)
        for directory, _, names in os.walk(roots[0]):  # an image's times are the same each time
            for name in names:
                path = os.path.join(directory, name)
                twin = os.path.join(roots[1], os.path.relpath(path, roots[0]))
                for each in (path, twin):
                    os.utime(each, (1_600_000_000, 1_600_000_000), follow_symlinks=False)
        one, other = roots
        before = seen_before(one)
        save(before.seen, Path(folder, "seen"))
        assert load(Path(folder, "seen")) == before.seen
        remove(one, gone)
        make(one, new)
        lay(one, {"var/lib/dpkg/status": stanza("dpkg", "1.21") + stanza("base", "2")})
        capture(one, before, asked=(), avoid=frozenset(), key="")
        carry(one, other)
        report = apply(other)
        assert report.notes == ()
        assert timeless(other) == timeless(one)


def timeless(root: Path) -> dict[str, tuple[object, ...]]:
    """What *root* holds without times: a file replaced by the same is no change."""
    found = content_of(root)
    return {name: (*said[:4], *said[5:]) for name, said in found.items()}
