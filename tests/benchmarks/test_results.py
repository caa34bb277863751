"""Results: what is written is read again, and the documentation says what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import report, results
from benchmarks.results import Results, Table

TABLE = Table("restore", ["way", "s"], [["cachepod restore", "1.5"], ["a | b", ""]], ["b is gone"])


def a_result() -> Results:
    made = results.begin("benchmarks.peers", {"cpu": "Some CPU", "cores": "2"}, {"rounds": 3})
    return replace(made, tables=(TABLE,), samples={"restore": [1.5, 1.6]})


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = a_result()
    made.write(tmp_path / "peers.json")
    read = Results.read(tmp_path / "peers.json")
    assert read.table("restore") == TABLE
    assert read == replace(made, tables=read.tables)


def test_a_file_that_is_no_result_is_named_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"benchmark": "peers"}')
    with pytest.raises(SystemExit, match=r"x\.json is no result of a benchmark"):
        Results.read(tmp_path / "x.json")


def test_a_command_is_told_without_the_paths_of_the_machine_it_ran_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = ["peers", "--tree", "/var/x", "--rounds", "3", "--json=/tmp/a.json", "--source", "s3"]
    given += ["--picture", "/tmp/a.svg", "--config", "/app/cachepod.toml"]
    monkeypatch.setattr("sys.argv", given)
    command = results.begin("benchmarks.peers", {}, {}).command
    assert command == (
        "python -m benchmarks.peers --tree DIR --rounds 3 --source s3 --config cachepod.toml"
    )


def test_a_page_gets_its_tables_from_the_results_and_keeps_the_rest(tmp_path: Path) -> None:
    a_result().write(tmp_path / "some.json")
    page = (
        "# Title\n\n<!-- table: some restore -->\nold\n<!-- end -->\n\nbetween\n\n"
        "<!-- measured: some -->\n<!-- end -->\nlast\n"
    )
    text = report.render(page, tmp_path)
    assert "| **cachepod restore** | 1.5 |" in " ".join(text.split())
    assert "a \\| b" in text
    assert "- b is gone" in text
    assert "python -m benchmarks.peers" in text
    assert "2 cores (Some CPU); rounds: 3." in text
    assert "old" not in text
    assert text.startswith("# Title\n")
    assert "between" in text
    assert text.endswith("last\n")
    assert report.render(text, tmp_path) == text


def test_a_page_gets_only_the_columns_that_it_names(tmp_path: Path) -> None:
    wide = Table("restore", ["way", "s", "ratio", "both s", "ratio"], [list("abcde")], ["a note"])
    replace(a_result(), tables=(wide,)).write(tmp_path / "some.json")
    text = report.render("<!-- table: some restore: both s, ratio -->\n<!-- end -->", tmp_path)
    assert " ".join(text.split()).count("| a | d | e |") == 1
    assert "note" not in text
    assert report.render(text, tmp_path) == text
    with pytest.raises(SystemExit, match="restore has no column 'files'"):
        report.render("<!-- table: some restore: files -->\n<!-- end -->", tmp_path)


def test_a_page_that_asks_for_a_table_that_is_not_there_is_told_which_there_are(
    tmp_path: Path,
) -> None:
    a_result().write(tmp_path / "some.json")
    with pytest.raises(SystemExit, match=r"no table 'publish': \['restore'\]"):
        report.render("<!-- table: some publish -->\n<!-- end -->", tmp_path)


@pytest.mark.parametrize("page", report.PAGES, ids=lambda page: page.name)
def test_the_documentation_says_what_the_results_say(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert report.render(text) == text


@pytest.mark.parametrize("page", report.PAGES, ids=lambda page: page.name)
def test_every_picture_of_a_page_can_be_drawn_from_its_result(page: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in report.shown(page.read_text(encoding="utf-8")):
        assert (report.PICTURES / f"{name}.svg").is_file()
        assert report.draw(name, pictures_=tmp_path).read_text(encoding="utf-8").startswith("<?xml")
