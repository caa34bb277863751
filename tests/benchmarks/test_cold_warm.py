"""Every kind of start is what it says; nothing of anybody else's is touched; failures are told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cold_warm import against, draw, starts
from benchmarks.results import Results
from tests.support import cli
from tests.support.project import Project
from tests.support.s3 import BUCKET, Server, environment

# The numbers that are measured are small, and so is what they need.
_SMALL = ("--plain", "--size", "0.05")
_EXPECTED = {"cold": 3, "warm": 0, "repeated": 0, "partial": 4, "after partial": 0}


@dataclass(frozen=True)
class Worker:
    """A project, and a disk for the benchmark."""

    project: Project
    scratch: Path

    def run(
        self, *words: str | Path, env: Mapping[str, str] | None = None, change: str = "beta==1.0"
    ) -> cli.Result:
        """The benchmark of the project's configuration, in its directory."""
        process = self.start(*words, env=env, change=change)
        try:
            out, err = process.communicate(timeout=240)
        finally:
            process.kill()
        return cli.Result(process.returncode, out, err)

    def start(
        self, *words: str | Path, env: Mapping[str, str] | None = None, change: str = "beta==1.0"
    ) -> subprocess.Popen[str]:
        """Start it."""
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.cold_warm", *_SMALL),
                *("--scratch", self.scratch, "--change", change, *words),
            ],
            cwd=self.project.root,
            env=cli.environment(self.project.root, env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def left(self) -> list[str]:
        """What lies on the disk, and in the store."""
        return [*os.listdir(self.scratch), *contents(self.project.store)]


def contents(root: Path) -> dict[str, int]:
    """Every path below *root*, and when it was last written."""
    return {
        os.path.relpath(path, root): path.lstat().st_mtime_ns for path in sorted(root.rglob("*"))
    }


def a_worker(folder: Path) -> Worker:
    (folder / "project").mkdir()
    (folder / "scratch").mkdir()
    return Worker(Project(folder / "project"), folder / "scratch")


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return a_worker(tmp_path)


def codes(found: Results) -> dict[str, set[int]]:
    """By kind, what its restores ended with."""
    return {
        kind: {each["steps"][0]["code"] for each in several}
        for kind, several in found.samples["starts"].items()
    }


def reports(found: Results, kind: str) -> dict[str, dict[str, Any]]:
    """By step, what it said of itself in the first start of a kind."""
    return {step["step"]: step["report"] for step in found.samples["starts"][kind][0]["steps"]}


def check_kinds(found: Results, number: int) -> None:
    """Each kind was what it says, and each start had all of its steps."""
    assert codes(found) == {kind: {code} for kind, code in _EXPECTED.items()}
    lengths = {kind: len(several) for kind, several in found.samples["starts"].items()}
    assert lengths == {kind: 1 if kind == "cold" else number for kind in _EXPECTED}
    cold, warm, repeated, partial, after = (reports(found, kind) for kind in _EXPECTED)
    assert cold["install"]["outcome"] == "installed"
    assert cold["publish"]["outcome"] == "stored"
    assert warm["restore"]["outcome"] == "restored"
    assert warm["restore"]["read"] > 300_000
    assert repeated["restore"]["outcome"] == "confirmed"
    assert partial["install"]["outcome"] == "topped up"
    assert partial["publish"]["outcome"] == "stored"
    assert 0 < partial["publish"]["stored_new"] < cold["publish"]["stored_new"] / 10
    assert after["restore"]["outcome"] == "restored"
    assert after["restore"]["files"] > warm["restore"]["files"]
    for hit in (warm, repeated, after):
        assert "install" not in hit
        assert hit["publish"]["outcome"] == "present"
    assert all("import alpha" in each for each in (cold, warm, repeated, partial, after))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Worker, cli.Result, Path, bool]:
    """A whole run on a directory store with somebody else's snapshot, and whether that stayed."""
    worker = a_worker(tmp_path_factory.mktemp("measured"))
    project = worker.project
    (project.root / "model").mkdir()
    (project.root / "model" / "layer").write_bytes(os.urandom(10_000))
    published = project.run(
        *("publish", "--store", "store", "--config", "/dev/null"),
        *("--tree", "model=model", "--key", "model-1"),
    )
    assert published.code == 0, published.err
    before = contents(project.store)
    json_, picture = worker.scratch.parent / "new.json", worker.scratch.parent / "new.svg"
    done = worker.run("--warm", "3", "--partial", "2", "--json", json_, "--picture", picture)
    untouched = contents(project.store) == before
    return worker, done, json_, untouched


Measured = tuple[Worker, cli.Result, Path, bool]


def test_each_kind_of_start_is_what_it_says(measured: Measured) -> None:
    _, done, file, _ = measured
    assert done.code == 0, done.err
    found = Results.read(file)
    samples = found.samples["starts"]
    assert len(samples["warm"]) == 3
    check_kinds(
        replace(
            found,
            samples={"starts": {kind: several[:2] for kind, several in samples.items()}},
        ),
        2,
    )
    assert all(each["stored"] > 300_000 for kind in ("cold", "partial") for each in samples[kind])
    assert all(
        step["peak"] > 1e6 and step["cpu"] > 0
        for several in samples.values()
        for each in several
        for step in each["steps"]
    )


def test_a_store_keeps_what_others_published_and_nothing_of_the_benchmark(
    measured: Measured,
) -> None:
    worker, _, _, untouched = measured
    assert untouched
    assert os.listdir(worker.scratch) == []
    listed = worker.project.run("ls", "--json", "--store", "store", "--config", "/dev/null")
    assert "model-1" in listed.out
    assert "cold-warm" not in listed.out


def test_the_output_names_the_machine_every_phase_and_a_sentence_to_quote(
    measured: Measured,
) -> None:
    _, done, file, _ = measured
    found = Results.read(file)
    assert "cachepod restore || cachepod install && cachepod publish" in done.out
    assert "changed: beta==1.0 added" in done.out
    assert "a new directory for each run" in done.out
    rows = {row[0].strip(): row[1:] for row in found.table("phases").rows}
    assert found.table("phases").headings == ["seconds", *_EXPECTED]
    assert {"confirm", "resolve", "packages", "bytecode", "store", "import alpha"} <= set(rows)
    assert rows["install"][1:3] == ["-", "-"]
    assert rows["starts"] == ["1", "3", "3", "2", "2"]
    warm = starts.from_json(found.samples["starts"])["warm"]
    totals = sorted(start.run.seconds for start in warm)
    assert rows["total"][1] == f"{totals[1]:.2f}"
    assert rows["range"][1] == f"{totals[0]:.2f}-{totals[2]:.2f}"
    assert any("a publish with nothing to do takes" in note for note in found.table("starts").notes)
    last = done.out.strip().splitlines()[-1]
    assert last.startswith(f"`import alpha` is done {totals[1]:.1f} s after a warm start begins")
    assert "with one requirement changed" in last
    assert max(map(len, str(found.table("starts")).splitlines()[:7])) < 80
    assert str(worker_root(measured)) not in file.read_text()


def worker_root(measured: Measured) -> Path:
    return measured[0].project.root


def test_the_picture_has_a_bar_as_long_as_the_table_says(measured: Measured) -> None:
    pytest.importorskip("matplotlib")
    _, _, file, _ = measured
    assert file.with_suffix(".svg").read_text().startswith("<?xml")
    found = Results.read(file)
    whole, part = draw(found).axes[:2]
    totals = found.table("phases").rows[-3][1:]
    assert [float(text.get_text()) for text in whole.texts] == pytest.approx(
        list(map(float, totals)), abs=0.06
    )
    assert len(part.texts) == 4, "the second has all but the cold start"
    names = [text.get_text() for text in whole.figure.legends[0].get_texts()]
    assert names[-1] == "other"
    assert names[-2] == "import alpha"
    assert len(names) <= 8


def test_a_result_beside_itself_has_not_changed(measured: Measured) -> None:
    worker, _, file, _ = measured
    shown = worker.run("--from", file, "--compare", file)
    assert shown.code == 0, shown.err
    assert "0 faster and 0 slower" in shown.out
    assert "different:" not in shown.out
    assert "warm: total" in shown.out


def changed(found: Results, factors: Mapping[str, float], **more: Any) -> Results:
    """*found* with the restores of some kinds slower or faster, and samples of *more*."""
    samples = json.loads(json.dumps(found.samples))
    for kind, factor in factors.items():
        for each in samples["starts"][kind]:
            for step in each["steps"]:
                if step["step"] == "restore":
                    step["seconds"] *= factor
                    step["report"]["phases"] = {
                        name: value * factor for name, value in step["report"]["phases"].items()
                    }
    return replace(found, samples={**samples, **more})


def test_a_comparison_marks_what_changed_and_what_cannot_be_noise(measured: Measured) -> None:
    found = Results.read(measured[2])
    table = against.compare(found, changed(found, {"warm": 100.0, "partial": 100.0}))
    marks = {row[0]: row[-1] for row in table.rows}
    assert marks["warm: restore"] == "slower"
    assert marks["warm: total"] == "slower"
    assert marks["warm: publish"] == ""
    assert marks["repeated: total"] == ""
    assert marks["partial: restore"] == "", "two samples have no spread that is known"
    assert any("partial: 2 and 2" in note for note in table.notes)
    ratios = {row[0]: row[4] for row in table.rows}
    assert ratios["warm: restore"] == "100.00"


def test_what_differs_between_two_machines_or_configurations_is_told(measured: Measured) -> None:
    found = Results.read(measured[2])
    inputs = dict(found.samples["configuration"])
    inputs["requirement:alpha"] = "==9.0"
    other = changed(found, {}, configuration=inputs, tree={"files": 1, "size": 2})
    other = replace(other, machine={**other.machine, "cpu": "another"})
    told = "\n".join(against.compare(found, other).notes)
    assert "different: cpu: " in told
    assert "now another" in told
    assert "different: requirement:alpha: ==1.0, now ==9.0" in told
    assert "different: tree: " in told


@pytest.mark.parametrize(
    ("old", "new", "mark"),
    [
        ([1.0, 1.1, 1.2], [1.3, 1.4, 1.5], "slower"),
        ([1.0, 1.1, 1.2], [0.7, 0.8, 0.9], "faster"),
        ([1.0, 1.1, 1.2], [1.15, 1.4, 1.5], ""),
        ([1.0, 1.1], [2.0, 2.1], ""),
        ([0.001, 0.001, 0.001], [0.009, 0.009, 0.009], ""),
    ],
)
def test_only_ranges_of_three_that_lie_apart_are_marked(
    old: list[float], new: list[float], mark: str
) -> None:
    assert against.mark(old, new) == mark


def test_a_store_in_s3_has_its_kinds_and_keeps_what_others_have(
    worker: Worker, rclone: Server
) -> None:
    client = rclone.client()
    client.put_object(Bucket=BUCKET, Key="ours/model", Body=b"weights")
    file = worker.scratch.parent / "s3.json"
    done = worker.run(
        *("--store", rclone.url("ours"), "--warm", "1", "--partial", "1", "--json", file),
        env=environment(),
    )
    assert done.code == 0, done.err
    check_kinds(Results.read(file), 1)
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix="ours/").get("Contents", [])
    assert [each["Key"] for each in listed] == ["ours/model"]
    assert "S3 (over loopback)" in done.out


def test_a_start_that_fails_has_its_row_and_the_others_go_on(worker: Worker) -> None:
    file = worker.scratch.parent / "failed.json"
    done = worker.run("--warm", "1", "--partial", "1", "--json", file, change="gamma==1.0")
    assert done.code == 1
    found = Results.read(file)
    assert codes(found) == {"cold": {3}, "warm": {0}, "repeated": {0}, "partial": {4}}
    table = found.table("phases")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["install"][3] == "exit 1"
    assert rows["total"][3] == "failed"
    assert any("partial: install ended with exit code 1: " in note for note in table.notes)
    assert "is done" in done.out.strip().splitlines()[-1]
    assert worker.left() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_stopped_in_the_middle_it_shows_what_it_has_and_leaves_nothing(
    worker: Worker, number: int
) -> None:
    file = worker.scratch.parent / "stopped.json"
    process = worker.start("--warm", "100", "--partial", "0", "--json", file)
    try:
        assert process.stderr is not None
        told = ["", ""]
        while "warm" not in told[-1]:
            told.append(process.stderr.readline())
            assert told[-1], told
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert err.strip().splitlines()[-1] == "interrupted: what was measured until then is above"
    assert "`import alpha` is done" in out
    assert Results.read(file).table("phases").headings[:3] == ["seconds", "cold", "warm"]
    assert worker.left() == []


def test_a_start_of_another_kind_than_expected_does_not_count() -> None:
    steps = [
        {"step": "restore", "seconds": 1.0, "cpu": 1.0, "peak": 1, "resident": 1, "code": 3}
        | {"problem": "", "report": {}}
    ]
    found = starts.from_json({"warm": [{"stored": 0, "steps": steps}]})
    assert starts.counted(found["warm"]) == []
    (note,) = starts.by_phase(found).notes
    assert note == "warm: restore ended with exit code 3, not with 0; it is no such start"
    assert "no warm start went well" in starts.verdict(found, "alpha")


def test_what_is_kept_can_be_listed(worker: Worker) -> None:
    done = worker.run("--warm", "0", "--partial", "1", "--keep")
    assert done.code == 0, done.err
    (place,) = worker.project.store.glob("cold-warm-*")
    assert str(place) in done.err
    listed = worker.project.run("ls", "--json", "--store", str(place / "1")).json
    assert len(listed["snapshots"]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--config", "none.toml"), "the file none.toml does not exist"),
        (("--change", "alpha==1.0"), "the configuration asks for that already"),
        (("--change", "=="), "is not NAME==VERSION"),
        (("--import", "no module"), "no name of a module"),
        (("--import", "nothing.at.all"), "--import nothing.at.all: what cachepod.toml installs"),
        (("--compare", "cachepod.toml"), "is no result of a benchmark"),
        (("--compare", "none.json"), "none.json cannot be read: No such file"),
        (("--picture", "starts.doc"), "a picture is .svg, .png or .pdf"),
        (("--json", "none/starts.json"), "there is no such directory"),
        (("--scratch", "none"), "--scratch none: there is no directory to write to"),
        (("--store", "cachepod.toml"), "cachepod.toml"),
        (("--store", "s3://bucket"), "there are no credentials"),
        (("--size", "1000000"), "GB are needed beside the tenth of the disk that stays free"),
        (("--rounds", "0"), "--rounds takes 1 or more"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    worker: Worker, words: tuple[str, ...], said: str
) -> None:
    env = {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
    done = worker.run(*words, env=env)
    last = done.err.strip().splitlines()[-1]
    assert done.code == 1
    assert said in last
    assert "Traceback" not in done.err
    if words[1] != "nothing.at.all":
        assert len(done.err.strip().splitlines()) == 1
        assert "|" not in done.out
    assert worker.left() == []
