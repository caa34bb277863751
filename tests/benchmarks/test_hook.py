"""The hook as the benchmarks run it: what a shell would do, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import hook
from benchmarks.hook import HookRun, Step
from benchmarks.measure import Cost
from tests.support.project import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    return Project(tmp_path)


def names(run: HookRun) -> list[str]:
    return [step.name for step in run.steps]


def test_a_miss_installs_and_publishes_and_a_hit_does_not_install(project: Project) -> None:
    config = project.root / "cachepod.toml"
    then = {"the program": ["python", "-c", "import alpha; print(alpha.__version__)"]}
    cold = hook.run_hook(config, then=then, watch=True)
    project.wipe()
    warm = hook.run_hook(config, then=then)
    assert names(cold) == ["restore", "install", "publish", "the program"]
    assert names(warm) == ["restore", "publish", "the program"]
    assert (cold.code, warm.code) == (3, 0)
    assert (cold.restored, warm.restored) == (False, True)
    assert not cold.problems + warm.problems
    assert {run.steps[-1].cost.output.strip() for run in (cold, warm)} == {"1.0"}
    assert cold.report("publish")["stored_new"] > 300_000
    assert warm.report("publish")["outcome"] == "present"
    assert cold.hook == pytest.approx(sum(step.cost.seconds for step in cold.steps[:-1]))
    table = hook.comparison({"cold": [cold], "warm": [warm]})
    rows = {line.split("|")[1].strip(): line.split("|")[2:4] for line in table.splitlines()}
    assert [cell.strip() for cell in rows["install"]][1] == "-"
    assert float(rows["total"][0]) == pytest.approx(cold.seconds, abs=0.006)


def test_an_install_that_fails_ends_the_hook_and_says_why(project: Project) -> None:
    project.configure('["gamma==1.0"]')
    run = hook.run_hook(project.root / "cachepod.toml", then={"x": ["true"]})
    assert names(run) == ["restore", "install"]
    (problem,) = run.problems
    assert problem.startswith("install ended with exit code 1: ")
    assert "gamma" in problem
    assert "\n" not in problem


def test_a_publish_that_fails_leaves_an_environment_to_run_in(project: Project) -> None:
    (project.root / "store").write_text("a file is no store")
    then = {"the program": ["python", "-c", "import alpha"]}
    run = hook.run_hook(project.root / "cachepod.toml", then=then)
    assert names(run) == ["restore", "install", "publish", "the program"]
    assert run.code == 5
    (problem,) = run.problems
    assert problem.startswith("publish ended with exit code 5: ")


def test_what_is_run_in_the_environment_is_told_by_its_last_line(project: Project) -> None:
    then = {"import nothing": ["python", "-c", "import nothing_of_this_name"]}
    (problem,) = hook.run_hook(project.root / "cachepod.toml", then=then).problems
    assert problem == (
        "import nothing ended with exit code 1: "
        "ModuleNotFoundError: No module named 'nothing_of_this_name'"
    )


def test_a_run_is_read_as_it_was_written_without_paths_of_the_machine() -> None:
    report = {"outcome": "restored", "trees": {"env": "/secret/place"}, "phases": {"check": 0.5}}
    step = Step("restore", Cost(1.5, 1.25, 10, 4, json.dumps(report), 20), "why")
    document = json.loads(json.dumps(step.as_json()))
    assert "/secret/place" not in json.dumps(document)
    again = Step.from_json(document)
    assert again.as_json() == step.as_json()
    assert again.cost.phases == {"check": 0.5}
    assert HookRun((again,)).problems == ["restore ended with exit code 4: why"]


def test_a_step_that_failed_has_its_row_where_it_was_run() -> None:
    def step(name: str, problem: str = "") -> Step:
        return Step(name, Cost(1.0, 1.0, 1, 1 if problem else 0, "{}"), problem)

    run = HookRun((step("restore"), step("install"), step("publish", "full"), step("import")))
    assert hook.order([[run]]) == [
        (name, "") for name in ("restore", "install", "publish", "import")
    ]
    assert ("publish", "") not in hook.by_line([run])
