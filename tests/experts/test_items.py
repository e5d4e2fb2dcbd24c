"""What lessons 64 and 65 cannot show in a cell: other libraries' numbers, and known truths."""
import math, os

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from domain_llm.bench.scores import Scores
from domain_llm.experts.items import answers_table, item_table, reliability
from domain_llm.bench.responses import load_responses
from domain_llm.experts.together import pair_answers, pair_gain, pair_sentence, proper_scores
from domain_llm.experts.verdict import published_scores

DATA = os.environ.get('DOMAIN_LLM_DATA')
needs_data = pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')


def exam(rng, people, cases, each=None, spread=1.):
    right = rng.random((cases, people)) < 1 / (
        1 + np.exp(-rng.normal(0, spread, people) - rng.normal(0.5, 0.7, (cases, 1)))
    )
    table = pd.DataFrame(right.astype(float))
    for person in range(people) if each else ():
        table.loc[rng.permutation(cases)[each:], person] = np.nan
    return table


@pytest.mark.parametrize('each', [None, 8])
def test_items_by_the_long_way(each):
    table = exam(np.random.default_rng(0), 30, 25, each)
    found = item_table(table)
    for case, row in table.iterrows():
        own = row.dropna()
        rest = table.drop(index=case)[own.index].mean()
        mine = found.set_index('case').loc[case]
        assert mine.answers == len(own) and math.isclose(mine.share, own.mean())
        if own.std() > 0 and rest.std() > 0 and len(own) > 3:
            assert math.isclose(mine.discrimination, np.corrcoef(own, rest)[0, 1], abs_tol=1e-12)


def test_guessers_are_rarely_flagged_and_exchanged_cases_often():
    rng, suspicious = np.random.default_rng(1), []
    for _ in range(30):
        guessed = pd.DataFrame((rng.random((40, 25)) < .5).astype(float))
        suspicious.append(item_table(guessed).flag.str.contains('guess|wrong').any())
    # two kinds of look, each at 5 % over all cases
    assert np.mean(suspicious) < .1 + 3 * math.sqrt(.1 * .9 / 30)
    turned = exam(rng, 150, 40)
    turned.iloc[0] = 1 - turned.iloc[0]
    assert item_table(turned).flag[0] and 'nobody' not in item_table(turned).flag[0]
    assert item_table(pd.DataFrame([[1., 1], [0, 1]])).flag.tolist() == ['tells nobody apart', '']


@pytest.mark.parametrize('people, cases', [(60, 30), (200, 15)])
def test_reliability_of_a_full_exam_is_cronbachs_alpha(people, cases):
    table = exam(np.random.default_rng(2), people, cases)
    by_case, total = table.var(axis=1, ddof=1).sum(), table.sum().var(ddof=1)
    alpha = cases / (cases - 1) * (1 - by_case / total)
    found = reliability(table).set_index('scores of')
    assert abs(found.reliability['takers'] - alpha) < .03
    assert found.low['takers'] < alpha < found.high['takers'] and found.answers['takers'] == cases


def test_takers_who_do_not_differ_have_no_reliability():
    rng = np.random.default_rng(3)
    found = [
        reliability(exam(rng, 50, 20, 10, spread=0), draws=20)
        .set_index('scores of')
        .variance['takers']
        for _ in range(60)
    ]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(60)


@needs_data
def test_the_real_experts_differ_little():
    found = reliability(answers_table(load_responses('brainbench-human'))).set_index(
        'scores of'
    )
    assert (
        abs(found.reliability['takers'] - 0.041) < 1e-3
        and abs(found.reliability['cases'] - 0.362) < 1e-3
    )
    assert found.n.tolist() == [171, 200]


# proper scores

@pytest.mark.parametrize('seed', [0, 1])
def test_proper_scores_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    sure = rng.random(300).round(2)
    right = rng.random(300) < sure
    found = proper_scores(sure, right)
    assert math.isclose(found['brier'], brier_score_loss(right, sure))
    assert math.isclose(found['auroc'], roc_auc_score(right, sure))
    assert math.isclose(
        found['log_score'], log_loss(right, np.clip(sure, 1e-6, 1 - 1e-6)), rel_tol=1e-9
    )
    assert math.isclose(proper_scores([.8] * 10, [1] * 5 + [0] * 5)['calibration_error'], .3)
    turned = np.random.default_rng(9).permutation(300)
    again = proper_scores(sure[turned], right[turned])
    # the order of equals does not matter
    assert math.isclose(again['calibration_error'], found['calibration_error'])
    assert math.isnan(proper_scores([.5, .6], [1, 1])['auroc'])


def test_an_honest_forecaster_is_as_far_off_as_luck_alone():
    rng, found = np.random.default_rng(2), []
    for _ in range(60):
        sure = rng.uniform(.5, 1, 200)
        scored = proper_scores(sure, rng.random(200) < sure, draws=50)
        found.append(scored['calibration_error'] - scored['honest_error'])
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(60)


# pairs

def world(rng, same, cases=150, people=20, each=15, mean=.5):
    known = rng.normal(0, 1, cases)
    margin = mean + (known if same else rng.normal(0, 1, cases))
    person = np.repeat(np.arange(people), each)
    case = np.concatenate([rng.permutation(cases)[:each] for _ in range(people)])
    opinion = mean + known[case] + .4 * rng.normal(size=len(case))
    rows = pd.DataFrame(
        dict(
            person=person.astype(str),
            case=case.astype(str),
            section='',
            correct=opinion > 0,
            confidence=np.minimum(100, 40 * abs(opinion)).round(),
        )
    )
    ids = [str(i) for i in np.unique(case)]
    frame = pd.DataFrame(
        dict(
            id=ids,
            section='',
            original=30.0,
            altered=30 * np.exp(0.02 * margin[list(map(int, ids))]),
        )
    )
    return Scores('model', frame), rows


def test_a_pair_of_people_who_know_different_things_gains_and_of_guessers_never():
    rng = np.random.default_rng(4)
    gains = np.array(
        [[g.difference for g in pair_gain(pair_answers(*world(rng, False)))] for _ in range(12)]
    )
    assert (gains.mean(axis=0) > .03).all()
    beats = [
        'beats both' in pair_sentence(pair_answers(*world(rng, False, mean=0))) for _ in range(40)
    ]
    assert np.mean(beats) <= .05 + 3 * math.sqrt(.05 * .95 / 40)


def test_the_weights_are_scikit_learns_and_come_from_other_cases():
    scores, rows = world(np.random.default_rng(5), False)
    table = pair_answers(scores, rows, folds=2)
    margin = pd.Series(scores.log_margin, scores.frame.id).loc[rows.case].to_numpy() / np.std(
        scores.log_margin
    )
    side = np.where(rows.correct, 1, -1)
    X = np.column_stack([side, side * rows.confidence / 100, margin])
    # the labels of versions do not matter: both directions of every answer
    for fold in (0, 1):
        part = (
            pd.Series(
                np.random.default_rng(0).permutation(rows.case.nunique()) % 2, rows.case.unique()
            )
            .loc[rows.case]
            .to_numpy()
        )
        train, test = X[part != fold], part == fold
        fit = LogisticRegression(fit_intercept=False, C=.5, tol=1e-10, max_iter=1000).fit(
            np.r_[train, -train], np.r_[np.ones(len(train)), np.zeros(len(train))])
        assert np.allclose(table.p_pair[test], fit.predict_proba(X[test])[:, 1], atol=1e-4)
    # answers to a case that is judged do not move its own weights
    case = rows.case.iloc[0]
    other = rows.assign(confidence=np.where(rows.case == case, 0, rows.confidence))
    both = pair_answers(scores, other)
    same_fold = np.isclose(both.p_model, pair_answers(scores, rows).p_model)
    assert same_fold.all()


def test_the_gains_interval_covers():
    rng, held, truth = np.random.default_rng(6), [], []
    gaps = [pair_gain(pair_answers(*world(rng, False)))[0] for _ in range(60)]
    truth = np.mean([g.difference for g in gaps])
    held = np.mean([g.interval[0] <= truth <= g.interval[1] for g in gaps])
    assert held > .95 - 3 * math.sqrt(.95 * .05 / 60)


@needs_data
def test_the_real_pair():
    table = pair_answers(
        published_scores('gpt2-large_scratch_neuro_tokenizer'),
        load_responses('brainbench-human'),
    )
    assert len(table) == 1011 and abs(table.pair.mean() - .743) < .002
    expert, model = pair_gain(table)
    assert expert.p < .001 and abs(expert.difference - .109) < .002 and model.p > .05
    assert 'beats the expert, but is not shown to beat the model' in pair_sentence(table)
