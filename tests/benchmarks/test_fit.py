"""How a curve grows: made data, of which it is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from benchmarks.scale.fit import amount, fit, growth_table

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)


def points(value: Callable[[int], float]) -> list[tuple[float, float]]:
    return [(n, value(n)) for n in SIZES]


def test_a_line_with_a_fixed_cost_is_told_apart_into_both() -> None:
    found = fit(points(lambda n: 0.5 + 4e-5 * n))
    assert found is not None
    assert found.fixed == pytest.approx(0.5)
    assert found.each == pytest.approx(4e-5)
    assert 0.9 < found.exponent < 1.0
    assert not found.faster


def test_the_exponent_is_that_of_the_upper_part() -> None:
    found = fit(points(lambda n: max(1.0, 1e-10 * n**2)))  # flat up to 100,000
    assert found is not None
    assert found.over == (100_000, 1_000_000)
    assert found.exponent == pytest.approx(2, abs=0.05)


def test_sorting_is_not_called_faster_than_linear() -> None:
    found = fit(points(lambda n: 1e-6 * n * math.log(n)))
    assert found is not None
    assert 1.05 < found.exponent < 1.15
    assert not found.faster
    assert str(found) == "n^1.08"


@pytest.mark.parametrize("power", [1.3, 2.0])
def test_what_grows_faster_than_linearly_is_flagged(power: float) -> None:
    found = fit(points(lambda n: 1e-9 * n**power))
    assert found is not None
    assert found.exponent == pytest.approx(power)
    assert str(found) == f"n^{power:.2f}, faster than linearly"


def test_a_square_that_hides_behind_a_fixed_cost_is_flagged_at_the_end_of_the_curve() -> None:
    found = fit(points(lambda n: 1 + 1e-5 * n + 3e-11 * n**2))
    assert found is not None
    assert found.faster


def test_what_stays_the_same_does_not_grow() -> None:
    found = fit(points(lambda n: 0.31))
    assert found is not None
    assert str(found) == "n^0.00, not at all"
    assert (found.fixed, found.each) == (pytest.approx(0.31), pytest.approx(0))


@pytest.mark.parametrize("seed", range(40))
def test_noise_on_a_line_is_not_taken_for_growth(seed: int) -> None:
    source = random.Random(seed)
    rounds = [
        (n, (0.2 + 3e-5 * n) * source.lognormvariate(0, 0.2)) for n in SIZES for _ in range(3)
    ]
    found = fit(rounds)
    assert found is not None
    assert not found.faster
    assert 0.7 < found.exponent < 1.3


def test_noise_does_not_hide_a_square() -> None:
    source = random.Random(7)
    rounds = [(n, 1e-9 * n**2 * source.lognormvariate(0, 0.2)) for n in SIZES for _ in range(3)]
    found = fit(rounds)
    assert found is not None
    assert found.faster


def test_of_two_sizes_that_are_near_each_other_only_a_steep_rise_is_believed() -> None:
    line, square = fit([(1, 1.0), (2, 2.5)]), fit([(1, 1.0), (10, 30.0)])
    assert line is not None
    assert square is not None
    assert line.exponent > 1.3
    assert not line.faster
    assert square.faster


def test_one_size_or_none_says_nothing() -> None:
    assert fit([]) is None
    assert fit([(10, 1.0), (10, 1.1)]) is None
    assert fit([(10, 1.0), (20, 0.0)]) is None


def test_a_table_says_how_each_curve_grows_and_what_is_to_be_looked_at() -> None:
    table = growth_table(
        "growth",
        {
            "restore": {
                "s": points(lambda n: 1 + 1e-5 * n),
                "CPU s": points(lambda n: 1e-10 * n * n),
                "peak MB": points(lambda n: 40),
            },
            "manifest": {"s": [], "peak MB": points(lambda n: n)},
        },
        1e5,
        "100,000 files",
    )
    assert table.headings == ["", "s as", "fixed", "for 100,000 files", "CPU s as", "peak MB as"]
    assert table.rows[0] == [
        *("restore", "n^0.74", "1.00", "1.00"),
        *("n^2.00, faster than linearly", "n^0.00, not at all"),
    ]
    assert table.rows[1] == ["manifest", "", "", "", "", "n^1.00"]
    assert table.notes == ["Faster than linearly: restore, CPU s."]


def test_an_amount_has_three_digits() -> None:
    shown = [amount(value) for value in (0, 0.01234, 1.234, 12.34, 1234.5, 1e-9)]
    assert shown == ["0", "0.0123", "1.23", "12.3", "1,230", "0"]
