"""What lesson 58 cannot show in a cell: a mixed model's opinion, and coverage with few seeds."""
import math

import numpy as np
import pandas as pd
import pytest
from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

from domain_llm.bench.seeds import recipe_gap, seed_variance


def trained(rng, ease, skill, seeds, luck=.04):
    return rng.random((len(ease), seeds)) < np.clip(
        skill + ease[:, None] + rng.normal(0, luck, seeds), 0, 1
    )


@pytest.mark.parametrize('luck', [0, .05])
def test_the_seeds_variance_is_unbiased(luck):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(800):
        right = trained(rng, rng.uniform(-.3, .3, 300), .6, 4, luck).astype(float)
        # without the floor at 0, the estimate would be unbiased
        rest = right - right.mean(axis=1, keepdims=True) - right.mean(axis=0) + right.mean()
        raw = right.mean(axis=0).var(ddof=1) / 4 - (rest**2).sum() / (299 * 3) / 1200
        assert math.isclose(seed_variance(right), max(0, raw), abs_tol=1e-15)
        found.append(raw)
    assert abs(np.mean(found) - luck**2 / 4) < 4 * np.std(found) / math.sqrt(800)


@pytest.mark.parametrize('seeds', [2, 3, 5])
@pytest.mark.parametrize('apart', [0, .06])
def test_the_interval_of_two_recipes_covers(seeds, apart):
    rng, held, worlds = np.random.default_rng(seeds), 0, 400
    for _ in range(worlds):
        ease = rng.uniform(-.25, .25, 300)
        gap = recipe_gap(trained(rng, ease, .6 + apart, seeds), trained(rng, ease, .6, seeds))
        if gap.interval[0] <= apart <= gap.interval[1]: held += 1
    assert held / worlds > .95 - 3 * math.sqrt(.95 * .05 / worlds), held / worlds


def test_a_mixed_logistic_model_is_of_the_same_opinion():
    rng = np.random.default_rng(3)
    opinions = []
    for apart in 0, .12, -.12:
        ease = rng.uniform(-.25, .25, 150)
        a, b = (trained(rng, ease, .6 + d, 4) for d in (apart, 0))
        gap = recipe_gap(a, b)
        right = np.column_stack([a, b])
        case, model = (part.ravel() for part in np.indices(right.shape))
        data = pd.DataFrame(
            dict(
                right=right.ravel().astype(int), new=(model < 4).astype(int), case=case, model=model
            )
        )
        fit = BinomialBayesMixedGLM.from_formula(
            'right ~ new', dict(case='0 + C(case)', model='0 + C(model)'), data
        ).fit_vb()
        opinions.append((gap.difference / gap.error, fit.fe_mean[1] / fit.fe_sd[1]))
    ours, theirs = np.array(opinions).T
    # variational fits are too sure of themselves, but they see the same direction and order
    assert (np.argsort(ours) == np.argsort(theirs)).all() and (
        np.sign(ours[1:]) == np.sign(theirs[1:])
    ).all()
