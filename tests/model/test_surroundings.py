"""What a snapshot may say of the surroundings of a tree."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from cachepod.model.surroundings import Surroundings
from tests.support.manifests import surroundings

AROUND = Surroundings(
    {"cuda": True, "cuda-13": False}, {"zz.conf": ("./lib", "cuda/lib64")}, "13.0.88"
)


@given(surroundings())
def test_surroundings_are_read_back_as_they_were(around: Surroundings) -> None:
    assert Surroundings.from_json(json.loads(json.dumps(around.to_json()))) == around


def test_equal_surroundings_are_the_same_bytes() -> None:
    turned = Surroundings(dict(reversed(AROUND.links.items())), AROUND.linker, AROUND.release)
    assert json.dumps(turned.to_json()) == json.dumps(AROUND.to_json())


@pytest.mark.parametrize(
    ("links", "linker"),
    [
        ({"bin": True}, {}),
        ({"../cuda": True}, {}),
        ({"cuda/x": True}, {}),
        ({"cuda\n": True}, {}),
        ({}, {"../evil.conf": []}),
        ({}, {".conf": []}),
        ({}, {"a.conf\n": []}),
        ({}, {"a.conf": ["/etc"]}),
        ({}, {"a.conf": ["./.."]}),
        ({}, {"a.conf": ["./lib\n/tmp"]}),
        ({}, {"a.conf": ["cuda/lib"]}),
        ({}, {"a.conf": ["./"]}),
        ({f"cuda-{number}": True for number in range(40)}, {}),
        ([], {}),
        ({}, {"a.conf": 1}),
    ],
)
def test_surroundings_name_nothing_outside_of_their_tree(links: object, linker: object) -> None:
    with pytest.raises(ValueError, match=r"tree|linker"):
        Surroundings.from_json({"links": links, "linker": linker, "release": ""})


@pytest.mark.parametrize("value", [None, [], {}, {"links": {}}, "links"])
def test_what_is_no_object_of_surroundings_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="what lies around a tree"):
        Surroundings.from_json(value)
