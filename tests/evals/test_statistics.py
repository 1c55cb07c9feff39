"""Every number of the statistics against scipy or statsmodels, on known data."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import zt_ind_solve_power
from statsmodels.stats.proportion import proportion_confint

from gateway_evals.statistics import (
    bootstrap_interval,
    clustered_error,
    compare_pairs,
    effect_size,
    error_of_mean,
    holm,
    interval_of_mean,
    mcnemar,
    minimum_detectable_effect,
    paired_bootstrap,
    standard_error,
    wilson,
)

# Student's sleep data (1908): extra hours of ten patients under two drugs.
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


@pytest.mark.parametrize(("right", "count"), [(0, 10), (10, 10), (3, 10), (57, 100), (1, 1319), (660, 1319)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson(right: int, count: int, level: float) -> None:
    low, high = proportion_confint(right, count, alpha=1 - level, method="wilson")
    found = wilson(right, count, level)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert 0 <= found.low <= found.high <= 1


def test_errors_of_means() -> None:
    assert standard_error(SLEEP_1) == pytest.approx(scipy.stats.sem(SLEEP_1))
    assert standard_error([1.0]) is None


def test_errors_over_groups_are_those_of_a_regression_on_a_constant() -> None:
    generator = random.Random(5)
    groups = [number // 4 for number in range(80)]
    centres = {group: generator.random() for group in groups}
    values = [float(generator.random() < centres[group]) for group in groups]
    model = sm.OLS(values, np.ones(80)).fit(cov_type="cluster", cov_kwds={"groups": np.asarray(groups)})
    assert clustered_error(values, groups) == pytest.approx(model.bse[0])
    assert clustered_error(values, list(range(80))) == pytest.approx(standard_error(values))
    # Questions on one text say less than as many on texts of their own.
    assert error_of_mean(values, groups) > standard_error(values)
    assert clustered_error(values, ["one"] * 80) is None
    found = interval_of_mean(values, groups)
    half = model.bse[0] * scipy.stats.t.ppf(0.975, 19)
    assert found is not None
    assert (found.method, found.high - found.low) == ("clustered", pytest.approx(2 * half))


def test_bootstrap_intervals() -> None:
    values = list(np.random.default_rng(3).gamma(2.0, size=200))
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000, random_state=0)
    found = bootstrap_interval(values, rounds=5000)
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=0.03)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=0.03)
    assert found == bootstrap_interval(values, rounds=5000), "the same seed draws the same"
    assert bootstrap_interval(values, seed=2) != bootstrap_interval(values, seed=3)
    wide = bootstrap_interval([value for value in values for _ in range(4)], [n // 4 for n in range(800)], rounds=5000)
    assert wide.high - wide.low == pytest.approx(found.high - found.low, rel=0.1), "copies are no new knowledge"


def test_the_interval_that_fits() -> None:
    assert interval_of_mean([1.0]) is None
    assert interval_of_mean([0, 1, 1.0]) == wilson(2, 3)
    assert interval_of_mean([0.2, 0.4, 0.1]).method == "bootstrap"  # pyright: ignore
    assert interval_of_mean([0, 1], ["a", "a"]) is None, "one source says nothing of others"
    few = interval_of_mean([0.1, 0.1, 0.9, 0.9, 0.2], ["a", "a", "b", "b", "c"])
    assert few is not None
    assert (few.low, few.method) == (0.0, "clustered"), "what is never below 0 has no mean below it"
    assert few.high > 1, "but may be large"


@pytest.mark.parametrize(("first", "second"), [(0, 0), (5, 0), (0, 12), (21, 9), (300, 250), (4000, 4100)])
def test_mcnemar(first: int, second: int) -> None:
    theirs = statsmodels_mcnemar([[7, first], [second, 9]], exact=True).pvalue
    assert mcnemar(first, second) == pytest.approx(min(1.0, theirs), rel=1e-9)


def test_paired_bootstrap() -> None:
    interval, p_value = paired_bootstrap(SLEEP_1, SLEEP_2, rounds=20_000)
    differences = np.subtract(SLEEP_2, SLEEP_1)
    theirs = scipy.stats.bootstrap((differences,), np.mean, method="percentile", n_resamples=20_000, random_state=1)
    assert interval.low == pytest.approx(theirs.confidence_interval.low, abs=0.03)
    assert interval.high == pytest.approx(theirs.confidence_interval.high, abs=0.03)
    assert p_value < 0.01, "the classical t-test says 0.0028"
    _, same = paired_bootstrap(SLEEP_1, SLEEP_1)
    assert same == 1.0


def test_few_groups_are_held_against_a_regression_with_students_t() -> None:
    generator = np.random.default_rng(8)
    groups = [number // 8 for number in range(40)]
    differences = generator.normal(0.1, 0.5, 40) + np.repeat(generator.normal(0, 0.2, 5), 8)
    found = compare_pairs([0.0] * 40, list(differences), groups)
    model = sm.OLS(differences, np.ones(40)).fit(
        cov_type="cluster", cov_kwds={"groups": np.asarray(groups)}, use_t=True
    )
    assert (found.test, found.groups) == ("clustered", 5)
    assert found.p_value == pytest.approx(model.pvalues[0])
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(model.conf_int()[0]))
    # Five groups that agree: a bootstrap of them would never draw a zero, and be sure.
    agreeing = compare_pairs([0.0] * 40, [0.1 * (1 + group) for group in groups], groups)
    assert agreeing.p_value is not None
    assert agreeing.p_value > 0.01 > paired_bootstrap([0.0] * 40, [0.1 * (1 + group) for group in groups], groups)[1]


def test_effect_sizes() -> None:
    differences = [b - a for a, b in zip(SLEEP_1, SLEEP_2, strict=True)]
    effect, interval = effect_size(differences)
    # d of paired samples is t / √n.
    assert effect == pytest.approx(scipy.stats.ttest_rel(SLEEP_2, SLEEP_1).statistic / math.sqrt(10))
    assert interval is not None
    assert interval.low < effect < interval.high
    assert effect_size([0.0, 0.0])[0] == 0
    assert effect_size([0.5, 0.5]) == (None, None)


@pytest.mark.parametrize("power", [0.8, 0.9])
def test_the_smallest_difference_that_would_be_found(power: float) -> None:
    spread, count = 0.7, 400
    found = minimum_detectable_effect(spread / math.sqrt(count), power=power)
    theirs = zt_ind_solve_power(nobs1=count, alpha=0.05, power=power, ratio=0, alternative="two-sided") * spread
    assert found == pytest.approx(theirs, rel=1e-4)


# Few and long: statsmodels collects garbage at every call, which takes a second beside many loaded modules.
@pytest.mark.parametrize("count", [1, 2, 300])
def test_holm(count: int) -> None:
    p_values = [round(float(each), 2) for each in np.random.default_rng(count).beta(0.3, 2.0, size=count)]
    assert len(set(p_values)) < 100, "with ties, zeros among them"
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]), abs=1e-12)


def test_a_whole_comparison() -> None:
    first = [1.0] * 40 + [0.0] * 60
    second = [1.0] * 35 + [0.0] * 5 + [1.0] * 20 + [0.0] * 40
    found = compare_pairs(first, second)
    assert (found.first, found.second, found.difference) == pytest.approx((0.4, 0.55, 0.15))
    assert (found.wins, found.losses, found.test) == (20, 5, "mcnemar")
    assert found.p_value == pytest.approx(mcnemar(5, 20))
    assert found.stderr == pytest.approx(scipy.stats.sem(np.subtract(second, first)))
    assert found.interval is not None
    assert found.interval.low > 0
    grouped = compare_pairs(first, second, [number // 5 for number in range(100)])
    assert (grouped.test, grouped.groups) == ("bootstrap", 20)
    assert compare_pairs([1.0], [0.0]).interval is None
    with pytest.raises(ValueError, match="no pair"):
        compare_pairs([], [])
    with pytest.raises(ValueError):
        compare_pairs([1.0], [])
