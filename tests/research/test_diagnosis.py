"""The Rasch model and the profile of groups of cases, judged by statsmodels and SciPy."""
import numpy as np
import pandas as pd
import pytest
from scipy.stats import permutation_test
from statsmodels.discrete.conditional_models import ConditionalLogit

from domain_llm.research.diagnosis import group_profile, laws_kept, rasch
from domain_llm.text.synthetic import SyntheticScience


@pytest.mark.filterwarnings('ignore:Dropped')   # readers with all or none right say nothing
def test_rasch_is_a_conditional_logit_of_answers_within_readers():
    rng = np.random.default_rng(1)
    right = rng.random((7, 150)) < 1 / (1 + np.exp(rng.normal(size=(7, 1)) - rng.normal(size=150)))
    found = rasch(pd.DataFrame(right.astype(int)))
    # the first question is the zero of the other library's scale
    question = np.tile(-np.eye(7)[:, 1:], (150, 1))
    judge = ConditionalLogit(right.T.ravel().astype(int), question,
                             groups=np.repeat(np.arange(150), 7)).fit(disp=0)
    theirs = np.r_[0, judge.params]
    assert np.allclose(found.difficulty, theirs - theirs.mean(), atol=2e-3)
    centre = np.eye(7)[:, 1:] - 1 / 7
    assert np.allclose(found.error, np.sqrt(np.diag(centre @ judge.cov_params() @ centre.T)),
                       atol=2e-3)


def test_group_profile_has_the_p_of_every_regrouping():
    values = np.array([0.1, 0.9, 0.4, 1.3, 0.2, 0.8, 0.35, 1.1])
    groups = np.array(list('abababbb'))
    found = group_profile(pd.DataFrame(dict(x=values)), groups, 20_000).set_index('group').p
    def apart(a, b): return abs(a.mean() - b.mean())
    for name in 'ab':
        parts = values[groups == name], values[groups != name]
        exact = permutation_test(parts, apart, alternative='greater', n_resamples=np.inf).pvalue
        assert found[name] == pytest.approx(exact, abs=0.015)


@pytest.mark.parametrize('texts', [[], ['Nothing here.', 'No.']])
def test_texts_without_findings_are_refused(texts):
    with pytest.raises(ValueError, match='hold findings'): laws_kept(texts, SyntheticScience(0))
