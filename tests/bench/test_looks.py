"""What lesson 57 cannot show in a cell: other libraries' corrections, error rates, forged plans."""
import gc, json, math
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from domain_llm.bench.looks import (
    benjamini_hochberg, declare_plan, declared_beforehand, holm, read_plan)


@pytest.fixture(scope='module')
def nothing_to_collect():
    "Set what is in memory aside: statsmodels collects garbage at each correction."
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures('nothing_to_collect')
@settings(deadline=None, max_examples=80)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=15))
def test_corrections_are_those_of_statsmodels_and_scipy(ps):
    assert np.allclose(holm(ps), multipletests(ps, method='holm')[1])
    assert np.allclose(benjamini_hochberg(ps), multipletests(ps, method='fdr_bh')[1])
    assert np.allclose(benjamini_hochberg(ps), stats.false_discovery_control(ps))


def test_holm_names_a_false_difference_in_at_most_one_study_of_twenty():
    rng = np.random.default_rng(0)
    # twelve looks at nothing that share half of their luck, as models on the same cases do
    z = math.sqrt(.5) * rng.normal(size=(4000, 1)) + math.sqrt(.5) * rng.normal(size=(4000, 12))
    ps = 2 * stats.norm.sf(abs(z))
    raw, corrected = (np.mean([f(p).min() < .05 for p in ps]) for f in (np.asarray, holm))
    sd = math.sqrt(.05 * .95 / 4000)
    assert raw > .2 and corrected < .05 + 3 * sd, (raw, corrected)


def test_a_plan_is_written_once_and_read_with_its_hash(tmp_path):
    plan = declare_plan(tmp_path / 'run', ['m', 'experts'], .05)
    assert (
        plan == read_plan(tmp_path / 'run')
        and plan['primary'] == ['m', 'experts']
        and len(plan['sha256']) == 64
    )
    with pytest.raises(FileExistsError, match='written once'):
        declare_plan(tmp_path / 'run', ['m', 'x'], 0.05)
    assert read_plan(tmp_path) is None
    (tmp_path / 'plan.json').write_text('{"primary": ["a", "b"]}')
    with pytest.raises(ValueError, match='should hold primary'): read_plan(tmp_path)
    (tmp_path / 'plan.json').write_text('not json')
    with pytest.raises(ValueError, match='the plan of a study'): read_plan(tmp_path)


def test_a_plan_counts_only_if_it_was_there_first_and_unchanged(tmp_path):
    plan = declare_plan(tmp_path, ['m', 'experts'], .05)
    now = datetime.now(timezone.utc)
    def meta(hours, sha=plan['sha256']):
        return dict(scored=(now + timedelta(hours=hours)).isoformat(), plan_sha256=sha)
    assert declared_beforehand(plan, [meta(1), meta(2)])
    unplanned = dict(scored=meta(1)['scored'])
    for metas in [], [meta(1), meta(-1)], [meta(1), {}], [meta(1, 'other')], [unplanned]:
        assert not declared_beforehand(plan, metas)
    # the margin was widened after scoring
    path = tmp_path / 'plan.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(margin=.1)))
    assert not declared_beforehand(read_plan(tmp_path), [meta(1)])
