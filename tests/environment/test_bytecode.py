"""Bytecode: complete, loadable, and the same whatever else is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest

from cachepod.environment import bytecode
from cachepod.environment.bytecode import CompileReport, Target, cached, compile_environment
from cachepod.environment.distributions import distributions
from cachepod.environment.tidy import EPOCH, normalise_times
from cachepod.snapshot.progress import NoProgress

# Constants that marshal orders by hash, and names that it marks by who else refers to them.
SOURCE = """
def shared_name(argument, other=("alpha", "beta")):
    if argument in {{"alpha", "beta", "gamma", "delta", {number}}}:
        return {{"alpha": "beta", "name_{number}": shared_name}}
    return "name_{previous}"
"""

TARGET = Target(Path(sys.executable), sys.implementation.cache_tag or "", MAGIC_NUMBER)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    made = tmp_path / "site-packages"
    made.mkdir()
    return made


def distribution(site: Path, name: str, files: dict[str, str]) -> None:
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))


def many(name: str, count: int) -> dict[str, str]:
    return {
        f"{name}/module_{number}.py": SOURCE.format(number=number, previous=number - 1)
        for number in range(count)
    }


def compiled(site: Path, jobs: int = 2) -> CompileReport:
    normalise_times(site)
    return compile_environment(
        site, TARGET, list(distributions(site)), jobs=jobs, progress=NoProgress()
    )


def pycs(site: Path) -> dict[str, bytes]:
    return {str(path.relative_to(site)): path.read_bytes() for path in site.rglob("*.pyc")}


def test_every_source_gets_bytecode_that_the_interpreter_loads(site: Path) -> None:
    distribution(site, "alpha", {"alpha/__init__.py": "", "alpha/one.py": "x = 1\n"})
    (site / "stray.py").write_text("x = 2\n")
    report = compiled(site)
    found = pycs(site)
    assert report.files == len(found) == 3
    assert report.size == sum(map(len, found.values()))
    code = "import alpha.one, stray; print(alpha.one.__cached__, alpha.one.x, stray.x)"
    said = subprocess.run(
        [sys.executable, "-v", "-B", "-c", code],
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"matches {site / 'alpha' / 'one.py'}" in said.stderr
    assert said.stdout.split()[1:] == ["1", "2"]


def test_a_pyc_bears_its_sources_time(site: Path) -> None:
    distribution(site, "alpha", {"alpha/__init__.py": ""})
    compiled(site)
    assert {path.stat().st_mtime for path in site.rglob("*.pyc")} == {EPOCH}


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytecode, "SHARD", 7)


@pytest.mark.usefixtures("small_shards")
def test_bytecode_does_not_depend_on_the_number_of_cores(site: Path) -> None:
    distribution(site, "alpha", many("alpha", 30))
    distribution(site, "beta", many("beta", 10))
    compiled(site, jobs=1)
    first = pycs(site)
    for path in site.rglob("*.pyc"):
        path.unlink()
    compiled(site, jobs=4)
    assert pycs(site) == first
    assert len(first) == 40


@pytest.mark.usefixtures("small_shards")
def test_bytecode_does_not_depend_on_the_other_distributions(site: Path) -> None:
    distribution(site, "beta", many("beta", 30))
    compiled(site)
    alone = pycs(site)
    for path in site.rglob("*.pyc"):
        path.unlink()
    distribution(site, "alpha", many("alpha", 20))
    (site / "stray.py").write_text(SOURCE.format(number=1, previous=2))
    compiled(site)
    together = pycs(site)
    assert len(together) > len(alone)
    assert {name: together[name] for name in alone} == alone


@pytest.mark.usefixtures("small_shards")
def test_a_lost_pyc_comes_back_the_same_and_its_neighbours_are_not_touched(site: Path) -> None:
    distribution(site, "alpha", many("alpha", 20))
    compiled(site)
    before = pycs(site)
    lost = site / "alpha" / "__pycache__" / f"module_5.{TARGET.cache_tag}.pyc"
    lost.unlink()
    times = {path: path.stat().st_ctime_ns for path in site.rglob("*.pyc")}
    assert compiled(site).files == 1
    assert pycs(site) == before
    assert all(path.stat().st_ctime_ns == when for path, when in times.items())


def test_bytecode_does_not_depend_on_what_the_users_environment_says(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(site, "alpha", many("alpha", 12))
    compiled(site)
    first = pycs(site)
    for path in site.rglob("*.pyc"):
        path.unlink()
    for name, value in {
        "PYTHONHASHSEED": "77",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPYCACHEPREFIX": str(site / "elsewhere"),
        "SOURCE_DATE_EPOCH": "1",
        "PYTHONOPTIMIZE": "2",
        "LC_ALL": "C",
    }.items():
        monkeypatch.setenv(name, value)
    compiled(site)
    assert pycs(site) == first


def test_what_is_compiled_already_is_not_compiled_again(site: Path) -> None:
    distribution(site, "alpha", many("alpha", 5))
    assert compiled(site).files == 5
    assert compiled(site) == CompileReport(0, 0)


def test_an_outdated_pyc_is_replaced(site: Path) -> None:
    distribution(site, "alpha", {"alpha/__init__.py": "VALUE = 1\n"})
    compiled(site)
    source = site / "alpha" / "__init__.py"
    source.write_text("VALUE = 22\n")
    assert compiled(site).files == 1
    content = Path(cached(str(source), TARGET)).read_bytes()
    assert int.from_bytes(content[12:16], "little") == len("VALUE = 22\n")


def test_a_file_that_does_not_compile_is_left_to_whoever_imports_it(site: Path) -> None:
    distribution(
        site,
        "alpha",
        {
            "alpha/__init__.py": "",
            "alpha/python2.py": "print 'hello'\n",
            "alpha/template.py": "{% for each in all %}\n",
            "alpha/nul.py": "x = '\0'\n",
            "alpha/last.py": "x = 1\n",
        },
    )
    assert compiled(site).files == 2
    assert {name.rsplit("/", 1)[1].split(".")[0] for name in pycs(site)} == {"__init__", "last"}


def test_names_that_are_not_ascii_are_compiled(site: Path) -> None:
    distribution(site, "alpha", {"alpha/größe.py": "x = 1\n", "alpha/two words.py": "x = 2\n"})
    (site / os.fsdecode(b"odd\xff.py")).write_text("x = 3\n")
    assert compiled(site).files == 3


def test_a_record_that_leads_out_of_the_environment_compiles_nothing_there(
    site: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside.py").write_text("x = 1\n")
    distribution(site, "alpha", {"alpha/__init__.py": ""})
    record = site / "alpha-1.0.dist-info" / "RECORD"
    record.write_text(record.read_text() + "../outside.py,,\nalpha/gone.py,,\n")
    assert compiled(site).files == 1
    assert not (tmp_path / "__pycache__").exists()
