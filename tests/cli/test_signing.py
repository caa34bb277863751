"""The hook with keys: who signs, who restores, and what happens to what is not signed."""

from __future__ import annotations

import pytest

from cachepod.model.manifest import Manifest
from cachepod.model.names import manifest_name
from cachepod.stores.local import LocalStore
from tests.support.keys import pair_of_files, secret_file
from tests.support.project import Project


def key_of(project: Project) -> str:
    """The key of the project's environment."""
    return str(project.run("key", "--json").json["key"])


def manifest(project: Project) -> Manifest:
    """What is stored under it."""
    name = manifest_name(key_of(project))
    return Manifest.decode(LocalStore(project.store).read(name, limit=1 << 30), name=name)


@pytest.fixture(params=["secret", "pair"])
def signed(request: pytest.FixtureRequest, project: Project) -> Project:
    """A project with a key."""
    if request.param == "secret":
        path = secret_file(project.root / "key")
    else:
        path, _ = pair_of_files(project.root / "key")
    project.env["CACHEPOD_SIGNING_KEY"] = str(path)
    return project


def cold(project: Project) -> None:
    """Install and publish."""
    assert project.run("restore").code == 3
    assert project.run("install").code == 0
    assert project.run("publish").code == 0


def test_what_a_fleet_with_a_key_publishes_it_restores(signed: Project) -> None:
    cold(signed)
    assert manifest(signed).signature is not None
    signed.wipe()
    assert signed.run("restore").code == 0
    assert signed.version_of("alpha") == "1.0"
    assert "present in" in signed.run("publish").err


def test_a_snapshot_that_is_not_signed_is_a_miss_and_the_publish_replaces_it(
    signed: Project,
) -> None:
    without = {"CACHEPOD_SIGNING_KEY": ""}
    assert signed.run("install", env=without).code == 0
    assert signed.run("publish", env=without).code == 0
    before = manifest(signed)
    assert before.signature is None
    signed.wipe()
    missed = signed.run("restore")
    assert missed.code == 3
    assert "the snapshot is not signed" in missed.err
    assert signed.run("install").code == 0
    published = signed.run("publish")
    assert published.code == 0
    assert "stored in" in published.err
    assert manifest(signed).signature is not None
    signed.wipe()
    assert signed.run("restore").code == 0


def test_a_snapshot_is_shown_with_who_signed_it(signed: Project) -> None:
    cold(signed)
    key = key_of(signed)
    found = manifest(signed).signature
    assert found is not None
    document = signed.run("show", key, "--json").json
    assert (document["signed_by"], document["trusted"]) == (found.key_id.hex(), True)
    assert f"by {found.key_id.hex()}, trusted" in signed.run("show", key).out
    without = signed.run("show", key, env={"CACHEPOD_SIGNING_KEY": ""})
    assert "not checked: no key is configured" in without.out
    other, _ = pair_of_files(signed.root / "other", 9)
    stranger = signed.run("show", key, env={"CACHEPOD_SIGNING_KEY": str(other)})
    assert "not trusted, so it is not restored here" in stranger.out


def test_a_verification_names_what_a_restore_refuses(signed: Project) -> None:
    without = {"CACHEPOD_SIGNING_KEY": ""}
    assert signed.run("install", env=without).code == 0
    assert signed.run("publish", env=without).code == 0
    key = key_of(signed)
    for words in (("verify",), ("verify", key), ("verify", "--quick")):
        result = signed.run(*words)
        assert result.code == 0
        assert f"{key}: the snapshot is not signed; a restore refuses it" in result.out
    assert signed.run("verify", "--json").json["untrusted"][0]["key"] == key
    assert signed.run("verify", env=without).out == ""
    assert signed.run("publish", "--force").code == 0
    assert signed.run("verify").out == ""


def test_who_has_no_key_restores_what_is_signed(signed: Project) -> None:
    cold(signed)
    signed.wipe()
    assert signed.run("restore", env={"CACHEPOD_SIGNING_KEY": ""}).code == 0


def test_who_only_has_the_public_key_restores_and_does_not_publish(project: Project) -> None:
    private, public = pair_of_files(project.root / "key")
    reader = {"CACHEPOD_TRUSTED_KEYS": str(public)}
    assert project.run("restore", env=reader).code == 3
    assert project.run("install", env=reader).code == 0
    told = project.run("publish", "--json", env=reader)
    assert told.code == 0
    assert told.json["outcome"] == "unsigned"
    assert "not stored in" in told.err
    assert "there is no signing_key to sign it with" in told.err
    assert not list(LocalStore(project.store).list("manifests"))
    assert project.run("publish", env={"CACHEPOD_SIGNING_KEY": str(private)}).code == 0
    project.wipe()
    assert project.run("restore", env=reader).code == 0
    assert "present in" in project.run("publish", env=reader).err


def test_an_unsigned_relative_is_not_restored(signed: Project) -> None:
    without = {"CACHEPOD_SIGNING_KEY": ""}
    assert signed.run("install", env=without).code == 0
    assert signed.run("publish", env=without).code == 0
    signed.wipe()
    signed.configure('["alpha==2.0"]')
    assert signed.run("restore").code == 3
    assert signed.run("restore", env=without).code == 4


def test_a_damaged_signed_snapshot_is_set_aside_and_healed(signed: Project) -> None:
    cold(signed)
    path = signed.store / manifest_name(key_of(signed))
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    signed.wipe()
    assert signed.run("restore").code == 6
    assert signed.run("install").code == 0
    assert signed.run("publish").code == 0
    signed.wipe()
    assert signed.run("restore").code == 0


def test_a_missing_key_file_keeps_no_program_from_starting(project: Project) -> None:
    project.env["CACHEPOD_SIGNING_KEY"] = "no/such/file"
    restored = project.run("restore")
    assert restored.code == 2
    said = "CACHEPOD_SIGNING_KEY: the file that it names cannot be read: No such file or directory"
    assert restored.err.splitlines() == [f"cachepod: {said}"]
    assert project.run("install").code == 0
    assert project.run("publish").code == 2
    project.wipe()
    up = project.run("up", "--", "python", "-c", "import alpha; print(alpha.__version__)")
    assert (up.code, up.out) == (0, "1.0\n")


def test_a_tree_that_is_in_place_needs_no_key(signed: Project) -> None:
    cold(signed)
    signed.env["CACHEPOD_SIGNING_KEY"] = "no/such/file"
    assert signed.run("restore").code == 0
    assert signed.run("publish").code == 0


def test_a_key_that_others_may_read_is_told(signed: Project) -> None:
    (signed.root / "key").chmod(0o644)
    assert "others on this machine may read" in signed.run("restore").err


def test_the_configuration_shows_where_keys_lie_and_no_key(signed: Project) -> None:
    shown = signed.run("config").out
    assert str(signed.root / "key") in shown
    assert "5e5e" not in shown
    # The secret itself where its path belongs:
    for name in ("SIGNING_KEY", "TRUSTED_KEYS"):
        result = signed.run("config", env={f"CACHEPOD_{name}": "5e" * 32})
        assert "5e5e" not in result.out + result.err
        assert "*** (no such file)" in result.out
        assert "5e5e" not in signed.run("restore", "-vv", env={f"CACHEPOD_{name}": "5e" * 32}).err
