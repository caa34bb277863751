"""A state machine that compares any store with a dictionary."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from cachepod.errors import CorruptObject, ObjectMissing
from cachepod.stores.base import Writer, WriteStore, put

# None of them lies below another: a file system cannot have that, and no layout asks for it.
NAMES = st.sampled_from(
    ["packs/ab/1", "packs/ab/2", "packs/cd/3", "manifests/f/k", "manifests/g/k", "trash/1"]
)
PREFIXES = st.sampled_from(["packs", "packs/ab", "manifests", "manifests/g", "trash", "leases"])
CONTENTS = st.binary(max_size=300)


class StoreMachine(RuleBasedStateMachine):
    """Subclasses say how the store is made."""

    make: Callable[[], WriteStore]

    def __init__(self) -> None:
        super().__init__()
        self.store = type(self).make()
        self.model: dict[str, bytes] = {}

    writers = Bundle("writers")

    @rule(name=NAMES, data=CONTENTS)
    def put(self, name: str, data: bytes) -> None:
        assert put(self.store, name, data) == (name not in self.model)
        self.model.setdefault(name, data)

    @rule(target=writers, name=NAMES, pieces=st.lists(CONTENTS, max_size=3))
    def begin(self, name: str, pieces: list[bytes]) -> tuple[str, Writer, bytes]:
        writer = self.store.create(name)
        for piece in pieces:
            writer.write(piece)
        return name, writer, b"".join(pieces)

    @rule(begun=consumes(writers))
    def commit(self, begun: tuple[str, Writer, bytes]) -> None:
        name, writer, data = begun
        assert writer.commit() == (name not in self.model)
        self.model.setdefault(name, data)

    @rule(begun=consumes(writers))
    def abort(self, begun: tuple[str, Writer, bytes]) -> None:
        begun[1].abort()

    @rule(name=NAMES, limit=st.integers(0, 400))
    def read(self, name: str, limit: int) -> None:
        if name not in self.model:
            with pytest.raises(ObjectMissing):
                self.store.read(name, limit=limit)
        elif len(self.model[name]) > limit:
            with pytest.raises(CorruptObject):
                self.store.read(name, limit=limit)
        else:
            assert self.store.read(name, limit=limit) == self.model[name]

    @rule(name=NAMES, offset=st.integers(0, 400), length=st.integers(0, 400))
    def read_range(self, name: str, offset: int, length: int) -> None:
        buffer = bytearray(length)
        if name not in self.model:
            with pytest.raises(ObjectMissing):
                self.store.read_range(name, offset, memoryview(buffer))
        elif length and offset + length > len(self.model[name]):
            with pytest.raises(CorruptObject):
                self.store.read_range(name, offset, memoryview(buffer))
        elif length:
            self.store.read_range(name, offset, memoryview(buffer))
            assert buffer == self.model[name][offset : offset + length]

    @rule(name=NAMES)
    def size(self, name: str) -> None:
        if name in self.model:
            assert self.store.size(name) == len(self.model[name])
        else:
            with pytest.raises(ObjectMissing):
                self.store.size(name)

    @rule(name=NAMES, data=CONTENTS)
    def replace(self, name: str, data: bytes) -> None:
        self.store.replace(name, data)
        self.model[name] = data

    @rule(name=NAMES, to=NAMES)
    def move(self, name: str, to: str) -> None:
        if name in self.model:
            self.store.move(name, to)
            self.model[to] = self.model.pop(name)
        else:
            with pytest.raises(ObjectMissing):
                self.store.move(name, to)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        self.store.delete(name)
        self.model.pop(name, None)

    @rule(prefix=PREFIXES)
    def list(self, prefix: str) -> None:
        found = {info.name: info.size for info in self.store.list(prefix)}
        assert found == {
            name: len(data) for name, data in self.model.items() if name.startswith(prefix + "/")
        }

    @invariant()
    def holds_the_same_objects(self) -> None:
        found = {info.name for prefix in ("packs", "manifests", "trash") for info in
                 self.store.list(prefix)}  # fmt: skip
        assert found == set(self.model)


def compare_with_a_dictionary(make: Callable[[], WriteStore], examples: int = 30) -> None:
    """Run the machine on stores that *make* makes."""

    class Machine(StoreMachine):
        pass

    Machine.make = staticmethod(make)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
