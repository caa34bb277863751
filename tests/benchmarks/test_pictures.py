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


def test_a_curve_has_its_ticks_where_its_points_are() -> None:
    curve = Curve("restore", [300, 10_000, 1_000_000], [0.1, 1, 90])
    figure = pictures.draw_curves("Growth", [Panel("files", "files", "s", [curve], linear=True)])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["300", "10k", "1M"]
    assert axes.lines[1].get_ydata() == pytest.approx([0.027, 90])


def test_what_hardly_changes_does_not_look_as_if_it_did() -> None:
    curve = Curve("restore", [1, 1000], [0.50, 0.51])
    low, high = pictures.draw_curves("", [Panel("", "", "", [curve])]).axes[0].get_ylim()
    assert high > 5 * low


def test_panels_with_the_same_curves_share_one_legend() -> None:
    panel = Panel("", "", "", [Curve("a", [1, 2], [1, 2]), Curve("b", [1, 2], [1, 2])])
    figure = pictures.draw_curves("", [panel, panel])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert figure.axes[0].get_legend() is None
    other = Panel("", "", "", [Curve("c", [1, 2], [1, 2]), Curve("b", [1, 2], [1, 2])])
    assert not pictures.draw_curves("", [panel, other]).legends


def test_a_format_that_nobody_knows_is_named_in_one_sentence(tmp_path: Path) -> None:
    figure = pictures.draw_bars("Starts", {"": [Bar("a", {"x": 1.0})]})
    with pytest.raises(SystemExit, match=r"a\.doc: "):
        pictures.save(figure, tmp_path / "a.doc")


def test_a_legend_of_long_names_stays_within_the_picture() -> None:
    names = [f"a candidate with a long name, {rate} MB/s" for rate in (100, 200, 400, 800)]
    curves = [Curve(name, [1, 10], [1, 9]) for name in names]
    other = Panel("files", "files", "s", curves[:1])
    for panels in ([Panel("files", "files", "s", curves)] * 2, [Panel("", "", "", curves), other]):
        figure = pictures.draw_curves("Growth", panels)
        figure.draw_without_rendering()
        legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
        (shown,) = [legend for legend in legends if legend is not None]
        box = shown.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        assert figure.axes[0].get_window_extent().width > 0.3 * figure.bbox.width
