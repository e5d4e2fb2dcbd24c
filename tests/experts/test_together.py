"""An AUROC and its interval, judged by scikit-learn and by many draws."""
import math

import numpy as np
import pytest

from domain_llm.experts.together import auroc, auroc_interval, proper_scores

metrics = pytest.importorskip('sklearn.metrics', reason='needs scikit-learn')


def test_auroc_is_that_of_scikit_learn_with_ties_too():
    rng = np.random.default_rng(0)
    for value in rng.normal(size=90), rng.integers(0, 4, 90), np.zeros(90):
        right = rng.random(90) < 0.4
        assert math.isclose(auroc(value, right), metrics.roc_auc_score(right, value))


@pytest.mark.parametrize('shift', [0, 1, 2.5])
def test_the_interval_holds_the_truth_as_often_as_it_says(shift):
    rng, kinds = np.random.default_rng(1), np.r_[[1] * 32, [0] * 256]
    truth = 0.5 * (1 + math.erf(shift / 2))                    # of two normals so far apart
    held = []
    for _ in range(400):
        value = rng.normal(size=288) + shift * kinds
        low, high = auroc_interval(metrics.roc_auc_score(kinds, value), 32, 256)
        held.append(low <= truth <= high)
    assert 0.92 < np.mean(held) < 0.995


def test_probabilities_that_only_rounding_tells_apart_count_as_equal():
    rng = np.random.default_rng(2)
    sure = rng.choice([0.55, 0.7, 0.85], 300)
    right = rng.random(300) < sure
    off = sure * (1 + 1e-15 * rng.integers(-3, 4, 300))        # as another processor may round
    assert len(np.unique(off)) > 6
    exact, rounded = (proper_scores(x, right)['calibration_error'] for x in (sure, off))
    assert math.isclose(exact, rounded, abs_tol=1e-9)
