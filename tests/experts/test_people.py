"""Known coverage of what people's answers say, over many drawn worlds, and calibration fuzzed."""
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from domain_llm.experts.people import (
    calibration, ceiling_interval, compare_answers, logistic, noise_ceiling)
from small_worlds import answered

cases = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=60)


@settings(deadline=None, max_examples=80)
@given(cases, st.integers(1, 25), st.randoms(use_true_random=False))
def test_calibration_ignores_the_order_of_rows(rows, bins, random):
    first = calibration(*zip(*rows), bins=bins)
    random.shuffle(rows)
    assert np.allclose(first, calibration(*zip(*rows), bins=bins))
    assert (
        first.n.sum() == len(rows)
        and len(first) == min(bins, len(rows))
        and first.n.max() - first.n.min() <= 1
    )
    assert np.isclose((first.n * first.accuracy).sum(), sum(ok for _, ok in rows))
    assert (
        (first.confidence.diff().dropna() >= 0).all()
        and first.low.ge(0).all()
        and first.high.le(1).all()
    )
    assert (first.low <= first.accuracy + 1e-9).all() and (
        first.accuracy <= first.high + 1e-9
    ).all()


def test_the_clustered_logistic_covers_where_the_plain_one_does_not():
    rng, held, plain = np.random.default_rng(4), [], []
    for _ in range(200):
        person, case = np.divmod(np.arange(1200), 30)
        case = rng.integers(0, 60, 1200)
        # confidence is a trait of the person, and so is skill
        trait = rng.normal(0, 1, 40)[person]
        hit = rng.random(1200) < 1 / (
            1 + np.exp(-(0.5 + rng.normal(0, 0.6, 40)[person] + rng.normal(0, 0.4, 60)[case]))
        )
        for store, clusters in (held, [person, case]), (plain, ()):
            # the true slope is 0
            store.append(logistic(trait, hit, clusters).p >= .05)
    assert np.mean(held) > .88 and np.mean(plain) < .8, (np.mean(held), np.mean(plain))


@pytest.mark.parametrize('people, cases, each', [
    (3, 20, 20), (5, 40, 40), (10, 50, 20), (171, 200, 6)])
def test_a_clustered_slope_is_never_nan_and_holds_its_level(people, cases, each):
    rng, alarms, worlds = np.random.default_rng(7), [], 200
    person = np.repeat(np.arange(people), each)
    for _ in range(worlds):
        case = np.concatenate([rng.permutation(cases)[:each] for _ in range(people)])
        trait = rng.normal(0, 1, people)[person] + rng.normal(size=len(person))
        odds = .5 + rng.normal(0, .5, people)[person] + rng.normal(0, .5, cases)[case]
        fit = logistic(trait, rng.random(len(person)) < 1 / (1 + np.exp(-odds)), [case, person])
        assert (
            np.isfinite([fit.error, fit.p, *fit.odds_ratio]).all()
            and fit.df == min(people, cases) - 1
        )
        alarms.append(fit.p < .05)
    assert np.mean(alarms) < .05 + 3 * math.sqrt(.05 * .95 / worlds), np.mean(alarms)


def test_two_groups_are_compared_by_their_difference():
    rng, held = np.random.default_rng(1), []
    for _ in range(150):
        both = [
            answered(12, 30, rng, 0.1).assign(person=lambda t, g=g: g + t.person)
            for g in 'ab'
        ]
        gap = compare_answers('a', both[0], 'b', both[1])
        held.append(gap.interval[0] <= 0 <= gap.interval[1])
        assert (gap.p < .05) == (not gap.interval[0] <= 0 <= gap.interval[1])
    assert np.mean(held) > .95 - 3 * math.sqrt(.95 * .05 / 150)


def test_the_ceilings_interval_is_that_of_drawn_cases():
    rows = answered(30, 60, np.random.default_rng(2), each=10)
    rows['correct'] = np.random.default_rng(3).random(len(rows)) < 0.3 + 0.6 * (
        rows.case.astype(int) % 2
    )
    places, rng, drawn = list(rows.groupby('case').indices.values()), np.random.default_rng(0), []
    for _ in range(400):
        some = [places[i] for i in rng.integers(0, len(places), len(places))]
        names = np.repeat(np.arange(len(some)), list(map(len, some))).astype(str)
        drawn.append(noise_ceiling(rows.iloc[np.concatenate(some)].assign(case=names)))
    assert np.allclose(ceiling_interval(rows), np.quantile(drawn, [.025, .975]), atol=.03)
    low, high = ceiling_interval(rows)
    assert low < noise_ceiling(rows) < high
    # one answer to a case, or several to only one, say nothing
    once = rows.drop_duplicates('case')
    for few in once, rows[(rows.case == '0') | rows.index.isin(once.index)]:
        assert ceiling_interval(few) == (0, 1)
