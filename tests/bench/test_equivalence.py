"""What lesson 56 cannot show in a cell: other ways to the same p, and error rates by simulation."""
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from domain_llm.bench.equivalence import Gap, Spread, match_power, planned_error


@pytest.mark.parametrize('seed, margin', [(0, .05), (1, .1), (2, .3), (3, .5)])
def test_the_two_one_sided_tests_are_those_of_statsmodels(seed, margin):
    values = np.random.default_rng(seed).normal(.05, .4, 12)
    gap = Gap('m', values.mean(), stats.sem(values), df=11)
    p, (_, p_low, _), (_, p_high, _) = DescrStatsW(values).ttost_mean(-margin, margin)
    assert math.isclose(gap.p_match(margin), p, rel_tol=1e-9)
    assert math.isclose(gap.p_not_worse(margin), p_low, rel_tol=1e-9)
    theirs = stats.ttest_1samp(values, 0)
    assert math.isclose(gap.p, theirs.pvalue, rel_tol=1e-9)
    assert np.allclose(gap.interval, theirs.confidence_interval(.95))


def test_a_margin_is_reached_exactly_where_the_farther_end_of_the_90_percent_interval_lies():
    for difference in np.linspace(-.1, .1, 9):
        for df in 3, 40, math.inf:
            gap = Gap('m', difference, .03, df)
            ends = stats.t.interval(.9, df, difference, .03)
            assert math.isclose(gap.within, max(map(abs, ends)))
            assert gap.p_match(gap.within + 1e-6) < .05 < gap.p_match(gap.within - 1e-6)
            assert (gap.p < .05) == (gap.interval[0] > 0 or gap.interval[1] < 0)


@pytest.mark.parametrize('df', [4, 9, 30, math.inf])
def test_false_matches_and_power_by_simulation(df):
    rng, error, margin, n = np.random.default_rng(5), .015, .05, 40_000
    size = error * (np.ones(n) if math.isinf(df) else np.sqrt(rng.chisquare(df, n) / df))
    noise = rng.normal(0, error, n)
    reach = stats.t.ppf(.95, df) * size
    found = {d: np.mean(abs(noise + d) + reach < margin) for d in (0, .02, .05)}
    # in units of the simulation's own error
    for d, share in found.items():
        sd = math.sqrt(max(share * (1 - share), 1e-4) / n)
        assert abs(match_power(error, margin, df, d) - share) < 4 * sd + .002, (d, share)
    assert found[.05] <= .05 + 3 * math.sqrt(.05 * .95 / n)


def test_what_a_study_could_have_shown_is_found_in_four_of_five():
    for df in 9, math.inf:
        gap = Gap('m', 0., .02, df)
        rng = np.random.default_rng(6)
        size = 0.02 * (
            np.ones(40_000) if math.isinf(df) else np.sqrt(rng.chisquare(df, 40_000) / df)
        )
        found = abs(rng.normal(gap.could_show(), .02, 40_000)) > stats.t.ppf(.975, df) * size
        assert abs(found.mean() - .8) < .02, found.mean()


def test_the_planned_error_is_that_of_simulated_studies():
    spread, people, cases, each = Spread(case=.2, person=.01, answer=.15), 8, 60, 20
    rng, found = np.random.default_rng(7), []
    for _ in range(3000):
        favour, skill = rng.normal(0, .2**.5, cases), rng.normal(0, .1, people)
        luck = rng.normal(0, (.15 / (people * each))**.5)
        found.append(favour.mean() + skill.mean() + luck)
    assert abs(np.std(found) / planned_error(people, cases, each, spread) - 1) < 4 / math.sqrt(
        2 * 3000
    )
