"""A lock holds everything that an install needs, and nothing that must not be committed."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cachepod.environment.identity import identify
from cachepod.environment.install import install
from cachepod.environment.lock import LockReport, lock
from cachepod.errors import InstallFailed, TreeUnreadable, UsageProblem
from tests.support.wheels import Index, configured, plain_environ


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index(tmp_path / "index")
    made.add("alpha", "1.0")
    made.add("alpha", "2.0")
    made.add("beta", "1.0", requires=["alpha"])
    return made


def locked(folder: Path, index: Index, *packages: str, **keys: object) -> tuple[LockReport, str]:
    settings, identity = configured(folder, index, packages, **keys)
    output = folder / "requirements.lock"
    report = lock(settings, identity, output, environ=plain_environ(folder))
    return report, output.read_text()


def test_a_lock_pins_every_package_with_its_hashes(tmp_path: Path, index: Index) -> None:
    report, text = locked(tmp_path, index, "beta")
    wheel = tmp_path / "index" / "alpha" / "alpha-2.0-py3-none-any.whl"
    assert (report.outcome, report.packages, report.warnings) == ("written", 2, ())
    assert "alpha==2.0 \\\n" in text
    assert f"--hash={Index.digest(wheel)}" in text


def test_an_install_from_a_lock_brings_the_locked_versions_and_no_newer_ones(
    tmp_path: Path, index: Index
) -> None:
    locked(tmp_path, index, "beta")
    index.add("alpha", "3.0")
    settings, identity = configured(tmp_path, index, lock=tmp_path / "requirements.lock")
    report = install(settings, identity, environ=plain_environ(tmp_path))
    assert report.packages == 2
    code = "import alpha; print(alpha.VERSION)"
    said = subprocess.check_output([tmp_path / "env" / "bin" / "python", "-c", code], text=True)
    assert said == "2.0\n"


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_an_install_from_a_lock_refuses_a_file_that_was_changed(
    tmp_path: Path, index: Index, installer: str
) -> None:
    locked(tmp_path, index, "beta")
    index.add("alpha", "2.0", {"alpha/__init__.py": "import evil\n"})
    settings, identity = configured(
        tmp_path, index, lock=tmp_path / "requirements.lock", installer=installer
    )
    with pytest.raises(InstallFailed) as caught:
        install(settings, identity, environ=plain_environ(tmp_path))
    assert "alpha" in caught.value.message
    assert "hash" in caught.value.message
    assert not (tmp_path / "env").exists()


def test_a_lock_names_no_index_no_credentials_and_no_path_of_this_machine(
    tmp_path: Path, index: Index
) -> None:
    wheel = index.add("local", "1.0")
    (tmp_path / "project").mkdir()
    shutil.copy(wheel, tmp_path / "project" / wheel.name)
    report, text = locked(
        tmp_path,
        index,
        "beta",
        str(tmp_path / "project" / wheel.name),
        find_links=[str(tmp_path / "project")],
    )
    assert str(tmp_path) not in text
    assert "index" not in text
    assert f"./project/{wheel.name} " in text
    assert report.packages == 3


def test_credentials_in_the_url_of_a_package_stay_out_of_a_lock(
    tmp_path: Path, index: Index
) -> None:
    import http.server
    import threading

    index.add("alone", "1.0")
    handler = lambda *given: http.server.SimpleHTTPRequestHandler(  # noqa: E731
        *given, directory=str(index.root)
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        path = f"127.0.0.1:{server.server_port}/alone/alone-1.0-py3-none-any.whl"
        report, text = locked(tmp_path, index, f"alone @ http://me:hunter2@{path}")
        server.shutdown()
    assert f"alone @ http://{path}" in text
    assert "hunter2" not in text
    assert any("netrc" in warning for warning in report.warnings)


def test_a_lock_made_again_of_the_same_index_is_left_as_it_is(tmp_path: Path, index: Index) -> None:
    locked(tmp_path, index, "beta")
    output = tmp_path / "requirements.lock"
    before = output.stat().st_mtime_ns
    report, _ = locked(tmp_path, index, "beta")
    assert report.outcome == "unchanged"
    assert output.stat().st_mtime_ns == before


def test_a_lock_is_made_of_the_requirements_even_where_one_is_configured(
    tmp_path: Path, index: Index
) -> None:
    locked(tmp_path, index, "beta")
    index.add("alpha", "3.0")
    output = tmp_path / "requirements.lock"
    settings, _ = configured(tmp_path, index, ["beta"])
    settings = replace(settings, lock=output)
    lock(settings, identify(settings, {}), output, environ=plain_environ(tmp_path))
    assert "alpha==3.0" in output.read_text()


def test_without_requirements_there_is_nothing_to_lock(tmp_path: Path, index: Index) -> None:
    locked(tmp_path, index, "beta")
    output = tmp_path / "requirements.lock"
    settings, identity = configured(tmp_path, index, lock=output)
    with pytest.raises(UsageProblem):
        lock(settings, identity, output, environ=plain_environ(tmp_path))


def test_what_cannot_be_resolved_leaves_the_old_lock(tmp_path: Path, index: Index) -> None:
    _, before = locked(tmp_path, index, "beta")
    with pytest.raises(InstallFailed):
        locked(tmp_path, index, "no-such-package")
    assert (tmp_path / "requirements.lock").read_text() == before


def test_a_lock_that_cannot_be_written_is_named(tmp_path: Path, index: Index) -> None:
    settings, identity = configured(tmp_path, index, ["beta"])
    output = tmp_path / "nowhere" / "requirements.lock"
    with pytest.raises(TreeUnreadable) as caught:
        lock(settings, identity, output, environ=plain_environ(tmp_path))
    assert str(output.parent) in caught.value.message
