"""What lesson 50 cannot show in a cell: other libraries as judges, known coverage, and one room.

No other module computes an interval, a p or a power of its own.
"""
import itertools, math, re
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings, strategies as st
from scipy import stats
from statsmodels.stats import proportion
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.sandwich_covariance import cov_cluster_2groups

from domain_llm.bench.cases import make_cases
from domain_llm.bench.controls import check_cases
from domain_llm.experts.people import logistic
from domain_llm.bench import stats as S

PACKAGE = Path(S.__file__).parents[1]


# one room

OWN = re.compile(r'NormalDist|1\.96|norm\.(ppf|isf|cdf|sf)|\bbinom|chi2|\[0\.025|proportion_ci|'
                 r'sqrt\(\w+ \* \(1 - \w+\)')
# one interval and one test; equality and planning
ROOMS = 'bench/stats.py', 'bench/equivalence.py'
MODULES = sorted(PACKAGE.rglob('*.py'))


@pytest.mark.parametrize('path', MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_other_module_computes_an_interval_a_p_or_a_power(path):
    found = [line for line in path.read_text(encoding='utf-8').splitlines() if OWN.search(line)]
    assert bool(found) == (path.relative_to(PACKAGE).as_posix() in ROOMS), found


# one interval

@pytest.mark.parametrize('k, n', [(641, 1011), (0, 5), (5, 5), (1, 3), (100, 200), (20, 20)])
@pytest.mark.parametrize('level', [0.95, 0.8])
def test_wilsons_interval_is_that_of_scipy_and_statsmodels(k, n, level):
    found = S.wilson_interval(k, n, level)
    assert np.allclose(found, stats.binomtest(k, n).proportion_ci(level, 'wilson'))
    assert np.allclose(found, proportion.proportion_confint(k, n, 1 - level, 'wilson'))


@pytest.mark.parametrize('n', [1, 5, 6, 20, 50, 199, 200, 384, 1011])
def test_chance_is_the_exact_test_and_the_interval_never_contradicts_it(n):
    for k in range(n + 1):
        p, (low, high) = S.chance_test(k, n), S.accuracy_interval(k, n)
        if n <= 200 or abs(k - n / 2) < 60:
            assert math.isclose(p, stats.binomtest(k, n).pvalue, rel_tol=1e-9)
        assert (p < .05) == (not low <= .5 <= high) and low - 1e-9 <= k / n <= high + 1e-9
        assert np.isclose(S.Line('m', k, n).p_guessing, p)


def test_the_normal_curve_is_pythons():
    normal = NormalDist()
    for level in 0.5, 0.8, 0.95, 0.99:
        assert math.isclose(S.critical_z(level), normal.inv_cdf((1 + level) / 2))
    for z in -3, -0.1, 0, 1.5: assert math.isclose(S.two_sided_p(z), 2 * normal.cdf(-abs(z)))
    assert np.allclose(S.normal_interval(2, 0.5, 0.8), (2 - 0.5 * 1.2815516, 2 + 0.5 * 1.2815516))
    for z in 1.95, 1.97: assert (S.two_sided_p(z) < 0.05) == (S.normal_interval(z, 1)[0] > 0)


def test_the_bootstrap_is_scipys():
    values = np.random.default_rng(0).normal(size=80)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20000, method='percentile')
    found = S.bootstrap_interval(values, draws=20000)
    assert np.allclose(found, theirs.confidence_interval, atol=0.015)


def test_the_cluster_bootstrap_covers():
    rng, held, naive = np.random.default_rng(1), [], []
    for _ in range(200):
        easy = rng.uniform(.3, .9, 80)
        abstract = np.repeat(np.arange(80), rng.integers(1, 7, 80))
        # abstracts are right or wrong nearly as a whole
        right = rng.random(len(abstract)) < (easy > .6)[abstract] * .8 + .1
        for store, clusters in (held, abstract), (naive, None):
            low, high = S.bootstrap_interval(right, clusters, draws=400)
            store.append(low <= .5 <= high)
    assert .91 < np.mean(held) < .98 and np.mean(naive) < .85


# one paired test

@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_flipping_signs_against_all_sign_patterns(differences):
    d = np.array(differences)
    patterns = np.array(list(itertools.product((1, -1), repeat=len(d))))
    assert np.isclose(S.flip_test(d), np.mean(abs(patterns @ d) >= abs(d.sum())))


@pytest.mark.parametrize('k, n', [(0, 1), (3, 11), (18, 45), (50, 100), (7, 100), (400, 900)])
def test_flipping_single_cases_is_mcnemar(k, n):
    p = S.flip_test([1] * k + [-1] * (n - k) + [0] * 9)
    assert math.isclose(p, stats.binomtest(k, n).pvalue, rel_tol=1e-9)
    assert math.isclose(p, mcnemar([[5, k], [n - k, 4]], exact=True).pvalue, rel_tol=1e-9)


def test_test_and_interval_of_a_difference_never_contradict_each_other():
    at_odds, borderline = 0, 0
    for n in 20, 60, 200:
        for a, b in itertools.combinations(range(min(n, 45)), 2):
            p = stats.binomtest(a, a + b).pvalue
            if a + b > n or not .03 < p < .08: continue
            old = np.repeat([True, False], [a, n - a])
            new = np.repeat([False, True, False], [a, b, n - a - b])
            for first, second in (old, new), (new, old):
                found, borderline = S.paired_comparison('a', 'b', first, second), borderline + 1
                if (found.p < .05) != (found.low > 0 or found.high < 0): at_odds += 1
                assert found.low <= found.difference <= found.high
                if found.p >= .05: assert 'cannot decide' in str(found)
    assert borderline > 300 and at_odds == 0


def test_the_interval_of_a_difference_is_what_the_test_does_not_reject():
    # every shift by hand: the sign-flip test of the changes minus the shift, over all sign patterns
    change = np.array([1] * 7 + [-1] * 2 + [0] * 3)
    padded = np.r_[change, 1, -1].astype(float)
    signs = np.array(list(itertools.product((1, -1), repeat=len(padded))))
    def p(shift):
        d = padded - shift
        return np.mean(abs(signs @ d) >= abs(d.sum()) - 1e-9)
    low, high = S.flip_interval(change, draws=100_000)
    assert p(low - .02) < .05 < p(low + .02) and p(high + .02) < .05 < p(high - .02)


@pytest.mark.parametrize('n, gain, loss', [(10, .05, 0), (20, .9, .05), (50, .135, .09),
                                           (200, .02, .02), (200, .3, .1)])
def test_the_interval_of_a_difference_covers(n, gain, loss):
    drawn = np.random.default_rng(n).multinomial(n, [gain, loss, 1 - gain - loss], 500)
    kinds, times = np.unique(drawn, axis=0, return_counts=True)
    ends = [S.flip_interval(np.repeat([1, -1, 0], split), draws=2000) for split in kinds]
    held = np.average(
        [low - 1e-9 <= gain - loss <= high + 1e-9 for low, high in ends], weights=times
    )
    assert held > .95 - 2.6 * math.sqrt(.95 * .05 / 500)


def test_two_equal_coin_tossers_are_rarely_told_apart():
    rng, said = np.random.default_rng(0), []
    for _ in range(400):
        a, b = rng.random((2, 200)) < .6
        said.append(S.flip_test(b.astype(int) - a.astype(int)) < .05)
    # the exact test keeps its level and does not sleep
    assert .01 < np.mean(said) < .06


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), min_size=1),
       st.randoms(use_true_random=False))
def test_a_comparison_counts_and_does_not_mind_the_order(rows, random):
    a, b, labels = map(np.array, zip(*rows))
    first = S.paired_comparison('a', 'b', a, b, labels, 'abstract')
    assert (first.n, first.both) == (len(rows), (a & b).sum())
    assert (first.only_a, first.only_b) == ((a & ~b).sum(), (b & ~a).sum())
    per_label = [int(b[labels == x].sum() - a[labels == x].sum()) for x in set(labels)]
    assert math.isclose(first.p, S.flip_test(per_label))
    assert first.low <= first.difference <= first.high
    random.shuffle(rows)
    assert S.paired_comparison('a', 'b', *zip(*rows), 'abstract') == first
    alone = S.paired_comparison('a', 'b', a, b)
    assert alone.unit == 'case' and alone == S.paired_comparison('a', 'b', a, b, np.arange(len(a)))


@pytest.mark.parametrize('a, b', [((144, 200), (641, 1011)), ((3, 9), (8, 9)),
                                  ((641, 1011), (351, 503))])
def test_two_proportions_are_those_of_statsmodels(a, b):
    theirs = proportion.proportions_ztest([a[0], b[0]], [a[1], b[1]])
    assert np.allclose(S.two_proportions(S.Line('a', *a), S.Line('b', *b)), theirs)


# the truth of a world of people and cases: textbook, crossed with few=True and Student's t
@pytest.mark.parametrize('people, cases, each', [(5, 40, 40), (10, 50, 10), (20, 50, 20),
                                                 (171, 200, 6)])
def test_the_interval_of_few_people_covers(people, cases, each):
    rng, held, naive, worlds = np.random.default_rng(people), 0, 0, 400
    who = np.repeat(np.arange(people), each)
    for _ in range(worlds):
        what = np.concatenate([rng.permutation(cases)[:each] for _ in range(people)])
        skill, ease = rng.normal(0, .15, people), rng.normal(0, .15, cases)
        right = rng.random(len(who)) < np.clip(.6 + skill[who] + ease[what], 0, 1)
        error, df = S.clustered_error(right, [who, what], few=True), S.cluster_df([who, what])
        off = abs(right.mean() - .6)
        if off < S.critical_z(df=df) * error: held += 1
        if off < 1.96 * S.Line('', int(right.sum()), len(right)).se: naive += 1
    sd = math.sqrt(.95 * .05 / worlds)
    assert .95 - 3 * sd < held / worlds, held / worlds                  # never far too narrow
    assert naive / worlds < .95 - 3 * sd, naive / worlds                # as the textbook's is


# one power

@pytest.mark.parametrize('n, gain, loss', [(200, .135, .09), (60, .3, .1), (400, .1, .06),
                                           (30, .5, .2)])
def test_power_against_simulation(n, gain, loss):
    rng = np.random.default_rng(2)
    drawn = rng.multinomial(n, [gain, loss, 1 - gain - loss], 4000)[:, :2]
    found = {(a, b): stats.binomtest(int(a), int(a + b)).pvalue < .05 if a + b else False
             for a, b in map(tuple, np.unique(drawn, axis=0))}
    assert abs(S.mcnemar_power(n, gain, loss) - np.mean([found[tuple(d)] for d in drawn])) < .025


@pytest.mark.parametrize('n, gain, loss', [(7, .3, .2), (25, .9, .1), (40, .2, 0), (3000, .1, .08)])
def test_power_is_the_sum_over_all_outcomes(n, gain, loss):
    # nothing is left out: each number of disagreements, each split of it
    total = 0
    for m in range(n + 1):
        split = np.arange(m + 1)
        p = np.minimum(1, 2 * stats.binom.cdf(np.minimum(split, m - split), m, .5))
        rejected = stats.binom.pmf(split, m, gain / (gain + loss))[p < .05].sum()
        total += stats.binom.pmf(m, n, min(1, gain + loss)) * rejected
    assert math.isclose(S.mcnemar_power(n, gain, loss), total, abs_tol=1e-10)


@pytest.mark.parametrize('accuracy, power', [(.6, .8), (.65, .8), (.65, .9), (.9, .8)])
def test_more_cases_than_needed_are_never_too_few(accuracy, power):
    powers = np.array([S.mcnemar_power(n, accuracy, 1 - accuracy) for n in range(1, 400)])
    assert S.cases_needed(accuracy, 1 - accuracy, power) == 2 + np.flatnonzero(powers < power).max()


@settings(max_examples=60)
@given(st.floats(0, 1), st.floats(0, 1))
def test_a_difference_and_a_disagreement_are_a_gain_and_a_loss(difference, disagree):
    if difference <= disagree:
        gain, loss = S.gain_and_loss(difference, disagree)
        assert 0 <= loss <= gain and math.isclose(gain + loss, disagree)
        assert abs(gain - loss - difference) < 1e-12
    else:
        with pytest.raises(ValueError, match='`difference` should be'):
            S.gain_and_loss(difference, disagree)


def test_the_benchmarks_check_and_the_power_give_one_answer():
    texts = [f'We asked about {t}. We waited. It [[rose,fell]].' for t in ('rats', 'mice', 'fish')]
    cases = make_cases(texts)
    for points, needed in (5, '817'), (1, '19,813'), (30, f'{S.cases_needed(.3, 0)}'):
        found = check_cases(cases, difference=points / 100).set_index('check').found
        assert found[f'enough for a difference of {points} points'] == f'{needed} needed, 3 there'


# answers that share something

@pytest.fixture(scope='module')
def crossed():
    "Forty people and thirty cases, half of the pairs: who, what, a confidence, right or wrong."
    rng = np.random.default_rng(3)
    who, what = (part[rng.permutation(1200)[:600]] for part in np.divmod(np.arange(1200), 30))
    sure = rng.normal(size=40)[who] + rng.normal(size=600)
    right = rng.random(600) < .6 + rng.uniform(-.2, .2, 40)[who] + rng.uniform(-.2, .2, 30)[what]
    return who, what, sure, right.astype(float)


@pytest.mark.parametrize('few', [False, True])
def test_one_kind_of_cluster_is_that_of_statsmodels(crossed, few):
    who, what, _, right = crossed
    fit = sm.OLS(right, np.ones(600)).fit()
    for labels in who, what:
        theirs = fit.get_robustcov_results('cluster', groups=labels, use_correction=few)
        found = S.cluster_covariance((right - right.mean()) / 600, [labels], few)
        assert math.isclose(found, theirs.bse[0]**2, rel_tol=1e-9)
        if not few: assert math.isclose(S.clustered_error(right, [labels]), theirs.bse[0])


def test_two_kinds_of_cluster_are_those_of_statsmodels(crossed):
    who, what, sure, right = crossed
    X = np.column_stack([np.ones(600), sure])
    fit = sm.OLS(right, X).fit()
    bread = np.linalg.inv(X.T @ X)
    found = bread @ S.cluster_covariance(X * fit.resid[:, None], [who, what]) @ bread
    theirs = cov_cluster_2groups(fit, who, what, use_correction=False)[0]
    assert np.allclose(found, theirs, rtol=1e-9, atol=0)
    mean = sm.OLS(right, np.ones(600)).fit()
    variance = cov_cluster_2groups(mean, who, what, use_correction=False)[0][0, 0]
    assert math.isclose(S.clustered_error(right, [who, what])**2, variance, rel_tol=1e-9)


def test_the_clustered_logistic_is_that_of_statsmodels(crossed):
    who, _, sure, right = crossed
    how = dict(cov_type='cluster', cov_kwds=dict(groups=who, use_correction=False))
    theirs = sm.Logit(right, sm.add_constant(sure)).fit(disp=0, **how)
    ours = logistic(sure, right, [who])
    people = len(set(who))
    error = theirs.bse[1] * math.sqrt(people / (people - 1))
    expected = theirs.params[1], error, 2 * stats.t.sf(abs(theirs.params[1]) / error, people - 1)
    assert np.allclose((ours.slope, ours.error, ours.p), expected, rtol=1e-5)
