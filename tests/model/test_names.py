"""Names of objects: what may stand in a store, and that no key leads out of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepod.errors import UsageProblem
from cachepod.model.names import (
    check_key,
    check_tree_name,
    check_user_key,
    damaged_name,
    family_of,
    is_component,
    is_family,
    is_object_name,
    is_pack_id,
    lease_name,
    manifest_name,
    pack_name,
)

PACK = "0123456789abcdef" * 2
likely = st.text(st.sampled_from("aZ09._+-/\\ \n\0é"), max_size=12)
keys = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,167}", fullmatch=True)


def test_an_object_has_the_name_that_is_documented() -> None:
    key = "cp310-linux_x86_64-cu126-torch2.7.0-0123456789abcdef"
    assert manifest_name(key) == f"manifests/cp310-linux_x86_64-cu126-torch2.7.0/{key}"
    assert manifest_name("model-1") == "manifests/named/model-1"
    assert pack_name(PACK) == f"packs/01/{PACK}"
    assert damaged_name(PACK) == f"damaged/{PACK}"
    assert lease_name("model-1", 3) == "leases/model-1/3"


@pytest.mark.parametrize(
    "text", ["", ".", "..", ".hidden", "-x", "_x", "a/b", "a b", "a\n", "a\0", "é", "a" * 201]
)
def test_what_could_surprise_a_file_system_is_no_component(text: str) -> None:
    assert not is_component(text)


@given(parts=st.lists(likely, min_size=1, max_size=4))
def test_a_name_is_allowed_only_if_every_part_of_it_is(parts: list[str]) -> None:
    name = "/".join(parts)
    assert is_object_name(name) == all(map(is_component, name.split("/")))
    if is_object_name(name):
        assert not name.startswith("/")
        assert ".." not in name.split("/")


@given(key=keys)
def test_every_object_that_comes_of_a_key_may_be_stored(key: str) -> None:
    assert check_key(key) == key
    assert is_object_name(manifest_name(key))
    # What a replacement and a removal call it on the way.
    assert is_object_name(f"incoming/{key}.{'0' * 16}")
    assert is_object_name(f"trash/{key}.{'0' * 16}")
    assert is_object_name(lease_name(f"fill.{key}", 1))


@given(key=st.one_of(likely, st.text(max_size=20), keys.map(lambda key: key + "x" * 168)))
def test_a_key_is_a_component_that_is_not_too_long(key: str) -> None:
    if is_component(key) and len(key) <= 168:
        assert check_key(key) == key
    else:
        with pytest.raises(UsageProblem) as caught:
            check_key(key)
        assert caught.value.hint


@given(family=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,150}", fullmatch=True))
def test_a_computed_key_names_its_family(family: str) -> None:
    assert is_family(family)
    key = f"{family}-0123456789abcdef"
    assert family_of(key) == family
    assert check_key(key) == key
    with pytest.raises(UsageProblem, match="looks like a computed key"):
        check_user_key(key)


@pytest.mark.parametrize(
    "key", ["model-1", "x-0123456789ABCDEF", "x-0123456789abcde", "0123456789abcdef"]
)
def test_a_key_of_a_users_own_is_in_the_family_of_named_ones(key: str) -> None:
    assert check_user_key(key) == key
    assert family_of(key) == "named"


@pytest.mark.parametrize("text", [PACK.upper(), PACK[1:], PACK + "0", PACK[:-1] + "g", PACK + "\n"])
def test_what_is_not_32_digits_is_no_pack(text: str) -> None:
    assert is_pack_id(PACK)
    assert not is_pack_id(text)


@pytest.mark.parametrize("name", ["", "Env", "1a", "-a", "a/b", "a.b", "a" * 33, "a\n", "ä"])
def test_what_cannot_name_a_tree_is_refused(name: str) -> None:
    with pytest.raises(UsageProblem):
        check_tree_name(name)


@pytest.mark.parametrize("name", ["env", "a", "cuda-12_6", "a" * 32])
def test_a_trees_name_is_taken_as_it_is(name: str) -> None:
    assert check_tree_name(name) == name
