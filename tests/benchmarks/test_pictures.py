"""Pictures: what is drawn says what it was given."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import pictures
from benchmarks.pictures import Bar, Curve, Panel

pytest.importorskip("matplotlib")


def test_bars_end_with_their_sums_and_say_why_one_is_missing(tmp_path: Path) -> None:
    figure = pictures.draw_bars(
        "Starts",
        {
            "warm": [
                Bar("cachepod", {"restore": 5.0, "import": 1.5}, (6.0, 7.0), ours=True),
                Bar("borg", {}, note="no borg here"),
            ]
        },
    )
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["6.5", "no borg here"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["cachepod", "borg"]
    pictures.save(figure, tmp_path / "bars.svg")


def test_the_same_picture_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        panel = Panel("files", "files", "s", [Curve("restore", [1, 10], [1, 9], [1, 8], [2, 10])])
        pictures.save(pictures.draw_curves("Growth", [panel]), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_format_that_nobody_knows_is_named_in_one_sentence(tmp_path: Path) -> None:
    figure = pictures.draw_bars("Starts", {"": [Bar("a", {"x": 1.0})]})
    with pytest.raises(SystemExit, match=r"a\.doc: "):
        pictures.save(figure, tmp_path / "a.doc")
