"""What lesson 56 cannot show in a cell: other ways to the same p, error rates by simulation, and the words of a finding."""
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from domain_llm.bench.equivalence import (Gap, Spread, match_cases, match_power, match_sentence,
                                          planned_error, planning_table)


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


def test_planning_is_monotone_and_honest_about_never():
    for people, margin in (10, .05), (171, .05), (20, .1):
        n = match_cases(people, margin)
        power = [
            match_power(planned_error(people, m), margin, min(people, m) - 1) for m in (n - 1, n)
        ]
        assert power[0] < .8 <= power[1]
    assert match_cases(5, .05) is None and match_cases(5, .05, spread=Spread(person=0)) is not None
    table = planning_table([.05], [5, 171])
    assert table.isna().iloc[0, 0] and table.iloc[1, 0] == match_cases(171, .05)


def test_a_finding_never_mixes_up_equal_and_not_told_apart():
    for difference in np.linspace(-.12, .12, 25):
        for error in .005, .02, .04:
            gap = Gap('the model', difference, error)
            for margin in None, .05:
                said = match_sentence(gap, margin)
                matches = said.startswith('the model matches the experts within')
                assert matches == (margin is not None and gap.p_match(margin) < .05)
                assert ('no difference is shown' in said) == (gap.p >= .05 and not matches)
                assert ('it is above them' in said or 'it is below them' in said) == (gap.p < .05)
                assert f'less than {100 * gap.could_show():.1f} points' in said
                assert f'{difference * 100:+.1f} points' in said
    assert 'no margin was named beforehand' in match_sentence(Gap('m', 0., .01))
    late = match_sentence(Gap('m', 0., .01), .05, beforehand=False)
    assert 'the margin was named after the first score' in late


def test_a_difference_without_error():
    assert Gap('m', 0., 0.).p == 1 and Gap('m', .1, 0.).p == 0
    assert Gap('m', .01, 0.).p_match(.05) == 0 and Gap('m', .1, 0.).p_match(.05) == 1
