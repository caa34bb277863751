"""The hook's restore pins what it reads when that takes long."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cachepod.environment.hook import publish_environment
from cachepod.environment.restoration import restore_environment
from cachepod.model.names import PINS
from cachepod.snapshot.pins import pinned_when_long
from cachepod.stores.memory import MemoryStore
from tests.snapshot.test_pins import WaitsForAPin
from tests.support.wheels import configured


def test_a_restore_of_the_hook_that_takes_long_pins_what_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setitem(pinned_when_long.__wrapped__.__kwdefaults__, "after", 0.01)  # type: ignore[attr-defined]
    tree = tmp_path / "data"
    settings, identity = configured(tmp_path, None, trees={"data": str(tree)}, key="k", wait=0)
    store = MemoryStore()
    tree.mkdir()
    (tree / "file").write_bytes(b"content" * 1000)
    publish_environment(settings, identity, [store])
    shutil.rmtree(tree)
    result = restore_environment(settings, identity, [WaitsForAPin(store)])
    assert result.outcome == "restored"
    assert (tree / "file").read_bytes() == b"content" * 1000
    assert not list(store.list(PINS))
