"""Fingerprints and keys: stable for ever, blind to order, and explained line by line."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepod.errors import UsageProblem
from cachepod.model.fingerprint import Difference, Fingerprint
from cachepod.model.names import check_key, family_of
from tests.support.manifests import fingerprints, json_values

TORCH = Fingerprint(
    "cp310-linux_x86_64-cu126-torch2.7.0",
    {
        "python": "cpython 3.10.13",
        "prefix": "/app/.venv",
        "requirement:torch": "torch==2.7.0",
        "libc": "glibc 2.36",
    },
)
inputs = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=6)


@pytest.mark.parametrize(
    ("fingerprint", "key"),
    [
        (TORCH, "cp310-linux_x86_64-cu126-torch2.7.0-4c4e5a68366393e2"),
        (Fingerprint("trees", {}), "trees-175ecb18c1cffddc"),
        (Fingerprint("trees", {"tree:data": "data"}), "trees-6f6674128ed199ef"),
        (Fingerprint("trees", {"a": "é", "ß": '\U0001f40d\n"\\'}), "trees-803b6c83fc76dae9"),
        (Fingerprint("trees", {"prefix": "/\udcff"}), "trees-8ce1aba15efe7ef6"),
    ],
)
def test_a_key_never_changes(fingerprint: Fingerprint, key: str) -> None:
    # If this fails, every snapshot that users have published is a miss from now on.
    assert fingerprint.key == key


def test_a_digest_is_what_it_is_documented_to_be() -> None:
    text = (
        '["1","cp310-linux_x86_64-cu126-torch2.7.0",[["libc","glibc 2.36"],'
        '["prefix","/app/.venv"],["python","cpython 3.10.13"],'
        '["requirement:torch","torch==2.7.0"]]]'
    )
    assert TORCH.digest == hashlib.sha256(text.encode()).hexdigest()
    assert TORCH.key == f"{TORCH.family}-{TORCH.digest[:16]}"


@given(found=inputs, data=st.data())
def test_the_order_of_inputs_does_not_matter(found: dict[str, str], data: st.DataObject) -> None:
    shuffled = dict(data.draw(st.permutations(list(found.items()))))
    assert Fingerprint("f", shuffled).digest == Fingerprint("f", found).digest


@given(one=fingerprints, other=fingerprints)
def test_two_fingerprints_share_a_digest_only_if_they_are_equal(
    one: Fingerprint, other: Fingerprint
) -> None:
    assert (one.digest == other.digest) == (one == other)


@given(fingerprint=fingerprints)
def test_the_key_of_a_fingerprint_names_its_family(fingerprint: Fingerprint) -> None:
    assert check_key(fingerprint.key) == fingerprint.key
    assert family_of(fingerprint.key) == fingerprint.family


@given(fingerprint=fingerprints)
def test_a_fingerprint_comes_back_from_json_as_it_was(fingerprint: Fingerprint) -> None:
    again = Fingerprint.from_json(json.loads(json.dumps(fingerprint.to_json())))
    assert again == fingerprint
    assert again.key == fingerprint.key


@given(value=json_values)
def test_any_json_is_a_fingerprint_or_a_value_error(value: Any) -> None:
    for candidate in (value, {"family": value, "inputs": {}}, {"family": "f", "inputs": value}):
        try:
            found = Fingerprint.from_json(candidate)
        except ValueError:
            continue
        assert check_key(found.key)


@pytest.mark.parametrize("family", ["", "..", "a/b", "-a", "a b", "a" * 152])
def test_a_family_that_cannot_be_part_of_a_key_is_refused(family: str) -> None:
    with pytest.raises(UsageProblem, match="family"):
        Fingerprint(family, {})
    with pytest.raises(ValueError, match="family"):
        Fingerprint.from_json({"family": family, "inputs": {}})


@given(ours=inputs, theirs=inputs)
def test_the_differences_turn_one_fingerprint_into_the_other(
    ours: dict[str, str], theirs: dict[str, str]
) -> None:
    differences = Fingerprint("f", ours).differences(Fingerprint("f", theirs))
    names = [difference.name for difference in differences]
    assert names == sorted(names)
    changed = dict(ours)
    for difference in differences:
        assert ours.get(difference.name) == difference.ours
        changed.pop(difference.name, None)
        if difference.theirs is not None:
            changed[difference.name] = difference.theirs
    assert changed == theirs


def test_a_difference_says_who_lacks_what() -> None:
    ours = Fingerprint("f", {"a": "1", "b": "2", "same": "x"})
    theirs = Fingerprint("f", {"b": "3", "c": "4", "same": "x"})
    assert ours.differences(theirs) == [
        Difference("a", "1", None),
        Difference("b", "2", "3"),
        Difference("c", None, "4"),
    ]
