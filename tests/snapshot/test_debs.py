"""Files of Debian packages in a tree: whose they are, and what that spares a store."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cachepod.model.fingerprint import Fingerprint
from cachepod.snapshot.grouping import group
from cachepod.snapshot.progress import NoProgress
from cachepod.snapshot.publish import TreeSource, publish
from cachepod.snapshot.scan import scan
from cachepod.stores.memory import MemoryStore
from tests.support.dpkg import lay, stanza

PACKAGES = {"ffmpeg": "7:5.1", "git": "1:2.39", "libogg0": "1.3"}


def tree(root: Path, *names: str, log: str = "") -> Path:
    """A layer of these packages."""
    files: dict[str, str] = {"layer.json": log}
    status = ""
    for name in names:
        listed = f"{name}:amd64" if name.startswith("lib") else name
        info = f"files/var/lib/dpkg/info/{listed}"
        paths = [f"/usr/share/{name}/{number}" for number in range(20)]
        merged = f"/bin/{name}"  # where /bin is a link to /usr/bin
        files |= {f"files{path}": random.Random(path).randbytes(5_000).hex() for path in paths}
        files[f"files/usr{merged}"] = name
        files[f"{info}.list"] = "\n".join(["/.", "/usr", f"/usr/share/{name}", merged, *paths])
        files[f"{info}.md5sums"] = name
        status += stanza(name, PACKAGES[name])
    files["files/var/lib/dpkg/status"] = status
    lay(root, files)
    return root


def publish_layer(store: MemoryStore, root: Path, key: str) -> int:
    fingerprint = Fingerprint("debs", {"name": key})
    report = publish(store, fingerprint.key, fingerprint, [TreeSource("system", root)])
    return report.stored_new


def test_the_packages_of_a_tree_are_its_distributions(tmp_path: Path) -> None:
    found = scan([TreeSource("system", tree(tmp_path, "git", "libogg0"))], NoProgress())
    grouping = group(found)
    assert [(each.name, each.version) for each in grouping.distributions] == [
        ("deb:git", "1:2.39"),
        ("deb:libogg0", "1.3"),
    ]
    owned = {
        found.path(row).removeprefix(bytes(tmp_path) + b"/").decode(): owner
        for row, owner in enumerate(grouping.owner)
        if owner
    }
    assert owned["files/usr/bin/git"] == 1
    assert owned["files/var/lib/dpkg/info/git.md5sums"] == 1
    assert owned["files/usr/share/libogg0/7"] == 2
    assert owned["files/var/lib/dpkg/info/libogg0:amd64.list"] == 2
    assert "layer.json" not in owned
    assert len(owned) == 2 * 23


def test_one_more_package_stores_no_other_anew(tmp_path: Path) -> None:
    store = MemoryStore()
    first = publish_layer(store, tree(tmp_path / "a", "git", "libogg0", log="one"), "a")
    more = publish_layer(store, tree(tmp_path / "b", "ffmpeg", "git", "libogg0", log="two"), "b")
    assert more < 0.7 * first


@pytest.mark.parametrize(
    "line", ["usr/bin/git", "/../../etc/passwd", "/usr/../../x", "", "/\0", "/usr/bin/\udcff"]
)
def test_a_list_that_means_nothing_owns_nothing(tmp_path: Path, line: str) -> None:
    tree(tmp_path, "git")
    info = tmp_path / "files/var/lib/dpkg/info"
    (info / "evil.list").write_bytes(line.encode("utf-8", "surrogateescape") + b"\n")
    grouping = group(scan([TreeSource("system", tmp_path)], NoProgress()))
    assert [each.name for each in grouping.distributions] == ["deb:evil", "deb:git"]
    assert list(grouping.owner).count(1) == 1  # the list itself
