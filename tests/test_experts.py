"""What the rooms of people cannot show: properties, oracles, known coverage, crashes, a real browser.

The tables of the paper stand in test_paper_tables.py.
"""
import math, os, re, shutil, signal, subprocess, sys, textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from lxml import html as reader
from scipy import stats
from scipy.optimize import minimize

from domain_llm.bench.equivalence import Gap, match_sentence, Spread, planned_error
from domain_llm.bench.looks import correct_looks
from domain_llm.bench.stats import clustered_error, Line, format_p, two_proportions, wilson_interval
from domain_llm.bench.scores import Scores
from domain_llm.experts.people import (
    accuracy_by, answers_line, calibration, ceiling_interval, compare_answers, crossed_error,
    human_accuracy, load_participants, logistic, noise_ceiling, rank_bins, top_experts)
from domain_llm.experts.report import (evaluation_sections, plot_accuracy, plot_beside,
    plot_calibration, plot_correlation, plot_expertise, plot_gaps, plot_groups, write_report)
from domain_llm.experts.verdict import (
    against_experts, answers_by_case, compare, difficulty, error_correlation, expert_correlation,
    finetuning_boost, gaps_from_experts, gaps_table, pilot_spread, published_scores, state_verdict,
    summary_table, what_was_found, who_is_right, zlib_table)

DATA = os.environ.get('DOMAIN_LLM_DATA')
needs_data = pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')
CHROMIUM = next(
    (c for c in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')) if c), None
)
needs_browser = pytest.mark.skipif(not CHROMIUM, reason='needs Chromium')


def made_up(name, correct, ids=None):
    correct = np.asarray(correct, bool)
    original = np.full(len(correct), 30.)
    frame = pd.DataFrame(
        dict(
            id=ids or [str(i) for i in range(len(correct))],
            section='',
            original=original,
            altered=original + np.where(correct, 1, -1),
            correct=correct,
        )
    )
    return Scores(name, frame, {})


published = published_scores


# against the raw file and the paper's tests

@pytest.fixture(scope='module')
def answers(): return load_participants(Path(DATA) / 'brainbench')


@needs_data
def test_participants_agree_with_the_raw_file(answers):
    raw = pd.read_csv(Path(DATA) / 'brainbench' / 'participant_data.csv')
    assert answers.shape == (1514, 8) and answers.notna().all(axis=None)
    assert (answers.correct.to_numpy() == raw.correct.to_numpy()).all()
    rebuilt = answers.maker.map(dict(human='human', gpt4='machine')) + '_' + answers.section
    assert (rebuilt == raw.journal_section).all() and (
        answers.case.astype(float) == raw.abstract_id
    ).all()
    cases = pd.read_csv(Path(DATA) / 'brainbench' / 'BrainBench_Human_v0.1.csv')
    human = answers[answers.maker == 'human']
    # case 1 is the first row
    assert (cases.journal_section.to_numpy()[human.case.astype(int) - 1] == human.section).all()


@needs_data
@pytest.mark.parametrize('model,k,z,p', [
    ('gpt2_init', 92, -4.6006, 4e-6), ('gpt2', 115, -1.5748, .1153), ('gpt2_scratch', 116, -1.4421, .1493),
    ('finetune_gpt2', 127, .0261, .9791),
    ('finetune_gpt2_lr2e-6', 123, -.5095, .6104), ('gpt2_scratch_neuro_tokenizer', 125, -.2419, .8089),
    ('gpt2_scratch_neuro_tokenizer_spt', 129, .2947, .7682),
    ('gpt2-medium_scratch_neuro_tokenizer', 127, .0261, .9791),
    ('gpt2-medium_scratch_neuro_tokenizer_spt', 132, .6985, .4849),
    ('gpt2-large_scratch_neuro_tokenizer', 144, 2.3264, .0200), ('gpt2-medium', 131, .5638, .5729),
    ('gpt2-large', 139, 1.6456, .0998)])
def test_models_against_the_experts(answers, model, k, z, p):
    scores, line = published(model), human_accuracy(answers)
    row = summary_table([scores], line).iloc[0]
    assert (row.who, row.correct, row.n) == (model, k, 200)
    assert np.allclose(two_proportions(Line(model, k, 200), line), (z, p), atol=6e-5)
    side = 'above the experts' if z > 0 else 'below the experts'
    words = 'no difference is shown' if p >= .05 else f'it is {side[:5]} them'
    gap = against_experts(scores, answers)
    for said in state_verdict(scores, line), state_verdict(scores, answers):
        assert (
            words in said
            and f'{model} is within' in said
            and 'no margin was named beforehand' in said
        )
    assert 'only counts are known' in state_verdict(scores, Line('experts', 641, 1011))
    assert f'within {100 * gap.within:.1f} points of the experts' in state_verdict(scores, answers)
    assert ('cannot tell it from guessing' in state_verdict(scores)) == (model == 'gpt2_init')


@needs_data
@pytest.mark.parametrize('a,b,only_a,only_b,p', [
    ('gpt2_scratch', 'gpt2_scratch_neuro_tokenizer', 18, 27, .2327),
    ('gpt2', 'gpt2_scratch_neuro_tokenizer', 26, 36, .2529),
    ('gpt2_scratch', 'finetune_gpt2', 23, 34, .1849), ('gpt2', 'finetune_gpt2', 5, 17, .0169),
    ('gpt2_scratch_neuro_tokenizer', 'gpt2-large_scratch_neuro_tokenizer', 15, 34, .0094),
    ('gpt2-medium_scratch_neuro_tokenizer', 'gpt2-large_scratch_neuro_tokenizer', 6, 23, .0023)])
def test_published_contrasts(a, b, only_a, only_b, p):
    result = compare(published(a), published(b))
    assert (result.only_a, result.only_b) == (only_a, only_b) and abs(result.p - p) < 5e-5
    assert ('cannot decide' in str(result)) == (p >= .05) == ('better' not in str(result))


# properties

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


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_compare_counts_coin_tosses(pairs):
    left, right = zip(*pairs)
    result = compare(made_up('left', left), made_up('right', right))
    a, b = (sum(x and not y for x, y in p) for p in (pairs, [(y, x) for x, y in pairs]))
    tosses = np.array([stats.binom.pmf(k, a + b, .5) for k in range(a + b + 1)])
    expected = min(1, tosses[:min(a, b) + 1].sum() * 2)
    assert (result.only_a, result.only_b) == (a, b) and np.isclose(result.p, expected)
    assert result.p == compare(made_up('right', right), made_up('left', left)).p


# reading the answers

COLUMNS = ',pid,expertise,confidence,correct,abstract_id,journal_section,current position\n'
GOOD = COLUMNS + ('0,7.0,1,15,1,34.0,human_Neurobiology of Disease,Postdoc\n'
                  '1,7.0,55,58,0,151.0,machine_Systems/Circuits,Postdoc\n')


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / 'participant_data.csv').write_text(GOOD)
    return load_participants(tmp_path)


def test_answers_under_plain_names(tiny, tmp_path):
    assert tiny.equals(load_participants(tmp_path / 'participant_data.csv'))
    assert tiny.iloc[1].to_dict() == dict(
        participant='7',
        case='151',
        maker='gpt4',
        section='Systems/Circuits',
        correct=False,
        confidence=58,
        expertise=55,
        position='Postdoc',
    )
    assert (
        str(human_accuracy(tiny)) == 'experts: 1 of 1 right, 1.000 (95 % interval 0.207 to 1.000)'
    )
    assert human_accuracy(tiny, 'gpt4') == Line('experts', 0, 1) and len(top_experts(tiny)) == 1
    with pytest.raises(ValueError, match='0 of 0'): human_accuracy(tiny, 'robots')
    with pytest.raises(ValueError, match='should have a column age'): accuracy_by(tiny, 'age')


@pytest.mark.parametrize('old,new,words', [
    ('confidence,', 'surety,', 'confidence is missing'), ('machine_', 'robot_', "'robot' came"),
    ('58,0', '580,0', "'580' came in row 3"), ('58,0', ',0', "'nan' came in row 3"),
    ('58,0', '58,2', 'from 0 to 1'), ('15,1,', 'x,1,', "'x' came in row 2"), ('7.0', '7.5', 'pid should')])
def test_an_impossible_answer_is_named(tmp_path, old, new, words):
    file = tmp_path / 'participant_data.csv'
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(words)): load_participants(file)


def test_published_scores_need_the_data(monkeypatch, tmp_path):
    monkeypatch.setenv('DOMAIN_LLM_DATA', str(tmp_path))
    with pytest.raises(FileNotFoundError, match='published/gpt2/labels.npy'):
        published_scores('gpt2')


# paired comparisons

def test_clusters_of_equal_sentences_count_once():
    rng = np.random.default_rng(0)
    left, right = rng.random(60) < .5, rng.random(60) < .7
    once, thrice = (
        (made_up(n, c) for n, c in (('l', left), ('r', right))),
        (made_up(n, np.repeat(c, 3)) for n, c in (('l', left), ('r', right))),
    )
    thrice = [
        Scores(s.name, s.frame.assign(abstract=np.repeat(np.arange(60), 3)), {}) for s in thrice
    ]
    one, three = compare(*once), compare(*thrice, clusters='abstract')
    assert math.isclose(one.p, three.p) and (one.low, one.high) == (three.low, three.high)
    back = compare(made_up('r', right), made_up('l', left))
    assert str(one).split('a lead of ')[1][:5] == str(back).split('a lead of ')[1][:5]
    assert np.allclose([back.low, back.high], [-one.high, -one.low], atol=.02)
    # by abstract without being asked; as separate sentences only if asked
    assert compare(*thrice) == three and compare(*thrice, clusters=None).p < one.p
    assert 'exact sign flips by abstract' in str(three) and 'exact McNemar' in str(one)
    turned = compare(
        thrice[0],
        Scores('r', thrice[1].frame.sample(frac=1, random_state=1), {}),
        clusters='abstract',
    )
    # the order of the second model's cases does not matter
    assert (turned.p, turned.low, turned.high) == (three.p, three.low, three.high)
    with pytest.raises(ValueError, match="got 'section_'"): compare(*thrice, clusters='section_')


@needs_data
def test_isolated_sentences_are_compared_by_abstract():
    small, large = (
        published(f'{size}_scratch_neuro_tokenizer', isolated=True)
        for size in ('gpt2', 'gpt2-large')
    )
    result = compare(small, large, clusters='abstract')
    gap = large.frame.correct.astype(int) - small.frame.correct.astype(int)
    gap = gap.groupby(small.frame.abstract).sum().to_numpy()
    signs = np.random.default_rng(0).choice([-1, 1], (20000, len(gap)))
    assert abs(result.p - np.mean(abs(signs @ gap) >= abs(gap.sum()))) < .003
    assert (
        result.n == 488 and (result.only_a, result.only_b) == (49, 78) and result.unit == 'abstract'
    )
    by_id = [Scores(s.name, s.frame.drop(columns='abstract').sample(frac=1, random_state=0), {})
             for s in (small, large)]
    # the id alone, as lesson 54 makes it: 12.2
    assert compare(*by_id, clusters='abstract').p == result.p


@needs_data
def test_the_ids_of_isolated_sentences_are_those_of_lesson_07():
    from domain_llm.bench.cases import isolated_sentences
    assert published('gpt2_scratch_neuro_tokenizer', isolated=True).frame.id.tolist() == [c.id
        for c in isolated_sentences('brainbench-human', 'published')]


# cases and participants random

def world(rng, people, each, cases=200, skill=.22):
    """Draw a model and experts whose true accuracies are .70 and .63."""
    hard, skill = rng.uniform(-.12, .12, cases), rng.uniform(-skill, skill, people)
    case = np.concatenate([rng.permutation(cases)[:each] for _ in range(people)])
    person = np.repeat(np.arange(people), each)
    rows = pd.DataFrame(
        dict(
            participant=person.astype(str),
            maker='human',
            case=case.astype(str),
            section='',
            confidence=50,
            expertise=person % 101,
        )
    )
    model = made_up('model', rng.random(cases) < .70 + hard)
    return model, rows.assign(correct=rng.random(len(case)) < .63 + hard[case] + skill[person])


@pytest.mark.parametrize('people,each', [(171, 8), (40, 60), (12, 150)])
def test_the_crossed_intervals_cover(people, each):
    rng, gaps, lines, naive = np.random.default_rng(people), [], [], []
    while len(gaps) < 200:
        scores, rows = world(rng, people, each)
        if rows.case.nunique() < 200: continue
        gap, line = against_experts(scores, rows), human_accuracy(rows)
        gaps.append(gap.interval[0] < .07 < gap.interval[1])
        lines.append(line.interval[0] < .63 < line.interval[1])
        naive.append(abs(line.accuracy - .63) < 1.96 * line.se)
    assert .915 < np.mean(gaps) < .985, np.mean(gaps)
    assert .915 < np.mean(lines) < .99, np.mean(lines)
    assert people > 20 or np.mean(naive) < .7, np.mean(naive)


def test_crossed_error_without_sharing_is_the_usual_one():
    four = pd.DataFrame(dict(participant=list('wxyz'), maker='human', case=list('abcd'),
                             correct=[True, True, False, False]))
    assert math.isclose(crossed_error(four), Line('x', 2, 4).se)
    # the same numbers in two sets are other cases
    both = pd.concat([four, four.assign(maker='gpt4', participant=list('stuv'))])
    assert math.isclose(crossed_error(both), Line('x', 4, 8).se)


def test_against_experts_by_the_long_way():
    scores, rows = world(np.random.default_rng(3), 40, 50)
    gap, n, cases = against_experts(scores, rows), len(rows), len(scores.frame)
    m, e = scores.frame.set_index('id').correct, rows.correct - rows.correct.mean()
    by_case = [(m[c] - m.mean()) / cases - e[rows.case == c].sum() / n for c in m.index]
    by_person = [e[rows.participant == p].sum() / n for p in rows.participant.unique()]
    variance = cases / (cases - 1) * np.square(by_case).sum() + max(0,
        40 / 39 * np.square(by_person).sum() - np.square(e / n).sum())
    assert math.isclose(gap.error**2, variance) and math.isclose(
        gap.difference, scores.accuracy - rows.correct.mean()
    )
    turned = against_experts(
        Scores('model', scores.frame[::-1], {}), rows.sample(frac=1, random_state=0)
    )
    assert math.isclose(turned.error, gap.error)


def test_other_cases_than_the_scored_are_refused():
    scores, rows = world(np.random.default_rng(3), 40, 50)
    for bad, lacking in (rows[rows.case != '7'], 1), (rows.assign(maker='gpt4'), 200):
        with pytest.raises(ValueError, match=f'{lacking} without an answer'):
            against_experts(scores, bad)
    with pytest.raises(ValueError, match='got [12] cases of model twice'):
        against_experts(Scores('model', pd.concat([scores.frame, scores.frame[:1]]), {}), rows)
    # a part of the cases is fine
    against_experts(Scores('model', scores.frame[:50], {}), rows)
    with pytest.raises(ValueError, match='another subfield'):
        against_experts(Scores('m', scores.frame.assign(section='here'), {}), rows)


@needs_data
def test_the_other_set_cannot_be_taken_for_this_one(answers):
    cases = pd.read_csv(Path(DATA) / 'brainbench' / 'BrainBench_GPT-4_v0.1.csv')
    scores = made_up('m', np.arange(100) % 3 > 0, [str(i + 1) for i in range(100)])
    scores = Scores('m', scores.frame.assign(section=cases.journal_section), {})
    table = answers_by_case(scores, answers, 'gpt4')
    assert len(table) == 100 and (table.answers.sum(), table.right.sum()) == (503, 351)
    human_number = {
        doi: str(i)
        for i, doi in enumerate(
            pd.read_csv(Path(DATA) / 'brainbench' / 'BrainBench_Human_v0.1.csv').doi, 1
        )
    }
    for row, doi in zip(table.itertuples(), cases.doi):
        mine = answers[(answers.maker == 'gpt4') & (answers.case == human_number[doi])]
        assert (row.answers, row.right) == (len(mine), mine.correct.sum())
    assert math.isclose(
        against_experts(scores, answers, 'gpt4').difference, scores.accuracy - 351 / 503
    )
    with pytest.raises(ValueError, match='another subfield'):
        answers_by_case(scores, answers, 'human')


# calibration without bins

@pytest.mark.parametrize('ridge', [0, 1])
def test_logistic_against_a_plain_minimiser(ridge):
    rng = np.random.default_rng(0)
    sure = rng.normal(3, 2, 200)
    hit = rng.random(200) < 1 / (1 + np.exp(-.3 * sure))
    lost = lambda w: (
        np.logaddexp(0, np.where(hit, -1, 1) * (w[0] + w[1] * sure)).sum() + ridge * w[1] ** 2 / 2
    )
    best = minimize(lost, [0, 0], tol=1e-14).x
    fit = logistic(sure, hit, ridge=ridge)
    assert np.allclose([fit.intercept, fit.slope], best, atol=1e-5)
    if not ridge:
        assert math.isclose(logistic(sure * 7, hit).z, fit.z) and np.allclose(
            logistic(sure * 7, hit).odds_ratio, fit.odds_ratio
        )


def test_copies_of_an_answer_are_one_answer():
    rng = np.random.default_rng(0)
    sure, hit = rng.normal(3, 2, 200), rng.random(200) < .6
    copies = logistic(np.repeat(sure, 4), np.repeat(hit, 4), [np.repeat(np.arange(200), 4)])
    assert math.isclose(copies.error, logistic(sure, hit, [np.arange(200)]).error, rel_tol=1e-6)
    assert logistic(np.repeat(sure, 4), np.repeat(hit, 4)).error < .6 * copies.error


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


@pytest.mark.parametrize('confidence,correct,words', [([1, 2, 3, 4], [0, 0, 1, 1], 'separates'),
                                                      ([1, 1], [0, 1], '1 and 2 kinds'), ([1, 2], [1, 1],
                                                          '2 and 1 kinds'), ([1, np.inf], [1, 0], 'one finite')])
def test_a_slope_that_does_not_exist_is_refused(confidence, correct, words):
    with pytest.raises(ValueError, match=words): logistic(confidence, correct)


def test_calibration_refuses_what_it_cannot_count():
    for bad in ([], []), ([1, 2], [1]), ([1, np.nan], [1, 0]):
        with pytest.raises(ValueError, match='one finite confidence'): calibration(*bad)
    with pytest.raises(ValueError, match='3 came for 4 bins'): rank_bins([1, 2, 3], [1, 0, 1], 4)
    assert rank_bins([4, 3, 2, 1], [1, 1, 1, 0], 2)[1] == [.5, 1]
    halves = calibration([5] * 5, [1, 1, 1, 0, 0], bins=1).iloc[0]
    assert np.allclose([halves.low, halves.high], wilson_interval(3, 5))


@pytest.mark.parametrize('people, cases, each', [(3, 20, 20), (5, 40, 40), (10, 50, 20), (171, 200, 6)])
def test_a_clustered_slope_is_never_nan_and_holds_its_level(people, cases, each):
    rng, false, worlds = np.random.default_rng(7), 0, 200
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
        false += fit.p < .05
    assert false / worlds < .05 + 3 * math.sqrt(.05 * .95 / worlds), false / worlds
    with pytest.raises(ValueError, match='at least two of each'):
        logistic(trait, rng.random(len(person)) < .6, [case, np.zeros(len(person))])


# the experts' intervals and verdicts

def answered(people, cases, rng, skill=0., each=None):
    """Draw answers that are right on .63: a row each."""
    person = np.repeat(np.arange(people), each or cases)
    case = np.concatenate([rng.permutation(cases)[:each or cases] for _ in range(people)])
    right = rng.random(len(person)) < .63 + rng.normal(0, skill, people)[person]
    return pd.DataFrame(
        dict(
            participant=person.astype(str),
            maker='human',
            case=case.astype(str),
            section='x',
            confidence=rng.integers(0, 101, len(person)),
            expertise=50,
            position='p',
            correct=right,
        )
    )


@needs_data
def test_the_experts_interval_is_the_crossed_one_wherever_people_answered(answers):
    line, human = human_accuracy(answers), answers[answers.maker == 'human']
    assert np.allclose(line.interval, (.597, .671), atol=6e-4) and line.df == 170
    assert summary_table([published('gpt2')], line).set_index('who').loc['experts', ['low', 'high']].tolist() == list(line.interval)
    table = accuracy_by(human, 'section').set_index('section')
    for section, rows in human.groupby('section'):
        own = human_accuracy(rows)
        assert np.allclose(table.loc[section, ['low', 'high']].astype(float), own.interval)
        assert np.ptp(own.interval) > np.ptp(wilson_interval(own.k, own.n))
    bins = calibration(human.confidence, human.correct, clusters=[human.case, human.participant])
    assert (
        (bins.high - bins.low)
        >= np.ptp(calibration(human.confidence, human.correct)[['low', 'high']], axis=1) - 1e-9
    ).all()
    # one bin is the whole line
    whole = calibration(human.confidence, human.correct, 1, [human.case, human.participant]).iloc[0]
    assert np.allclose([whole.low, whole.high], answers_line('x', human.assign(maker='')).interval)


def test_calibration_with_clusters_ignores_the_order_of_rows():
    rows = answered(12, 40, np.random.default_rng(0)).assign(
        confidence=lambda t: t.confidence // 25
    )
    turned = rows.sample(frac=1, random_state=1)
    first, second = (
        calibration(t.confidence, t.correct, 5, [t.case, t.participant]) for t in (rows, turned)
    )
    assert np.allclose(first, second)


def test_a_bin_that_shares_equals_counts_them_in_part():
    rows = answered(12, 40, np.random.default_rng(0), .15)
    rows['confidence'] = np.select(
        [np.arange(len(rows)) % 5 < 2, np.arange(len(rows)) % 5 < 4], [20, 50], 90
    )
    # 192, 192 and 96 answers in two bins of 240: the lower bin holds 48 of the 192 in the middle
    weights = rows.confidence.map({20: 1., 50: .25, 90: 0.}).to_numpy()
    low = calibration(rows.confidence, rows.correct, 2, [rows.case, rows.participant]).iloc[0]
    inside = weights > 0
    error = clustered_error(
        rows.correct[inside], [rows.case[inside], rows.participant[inside]], True, weights[inside]
    )
    half = stats.t.ppf(.975, 11) * error
    assert math.isclose(low.accuracy, np.average(rows.correct, weights=weights))
    assert np.allclose([low.low, low.high], [low.accuracy - half, low.accuracy + half])


def test_numbers_name_people_and_cases_as_well_as_text_does():
    rows = answered(9, 30, np.random.default_rng(0), .1)
    numbers = rows.astype(dict(case=int, participant=int))
    assert human_accuracy(rows) == human_accuracy(numbers) and human_accuracy(rows).df == 8
    # only right and wrong are known: separate answers
    assert human_accuracy(rows[['maker', 'correct']]).error is None


def test_one_person_does_not_stand_for_experts():
    rows = answered(1, 40, np.random.default_rng(0)).assign(section='')
    model = made_up('m', np.arange(40) % 3 > 0)
    assert human_accuracy(rows).error is None
    with pytest.raises(ValueError, match='at least two of each'): against_experts(model, rows)
    said = state_verdict(model, rows)
    assert (
        said.startswith('Whether m matches experts cannot be said.')
        and 'at least two of each' in said
    )
    assert what_was_found(model, rows)[1][0] == said


def test_two_groups_are_compared_by_their_difference():
    rng, held = np.random.default_rng(1), []
    for _ in range(150):
        both = [
            answered(12, 30, rng, 0.1).assign(participant=lambda t, g=g: g + t.participant)
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


# many looks, plans, seeds

def test_several_models_are_corrected_and_a_declared_one_is_tested_alone():
    rng = np.random.default_rng(4)
    rows = answered(40, 200, rng, .05).assign(section='')
    ids = [str(i) for i in range(200)]
    models = [
        made_up(f'm{i}', rng.random(200) < p, ids) for i, p in enumerate((0.75, 0.63, 0.63, 0.63))
    ]
    gaps = [against_experts(m, rows) for m in models]
    corrected = correct_looks(gaps)
    said = what_was_found(models, rows)[1]
    for sentence, gap in zip(said, corrected):
        assert f'corrected for 4 looks {format_p(gap.corrected)}' in sentence
        assert ('it is above them' in sentence) == (gap.corrected < .05 and gap.difference > 0)
    assert gaps_table(gaps).corrected.tolist() == [g.corrected for g in corrected]
    plan = dict(
        primary=['m0', 'experts'], margin=0.05, declared='2020-01-01T00:00:00+00:00', sha256='abc'
    )
    late = what_was_found(models, rows, plan=plan)[1]
    assert (
        late[0].startswith('Declared afterwards: m0')
        and 'the margin was named after the first score' in late[0]
    )
    stamp = dict(scored='2021-01-01T00:00:00+00:00', plan_sha256='abc')
    stamped = [Scores(m.name, m.frame, stamp) for m in models]
    said = what_was_found(stamped, rows, plan=plan)[1]
    assert said[0].startswith('Declared beforehand: m0') and 'corrected' not in said[0]
    assert f'{format_p(gaps[0].p)} for a difference' in said[0] and 'within 5 points' in said[0]
    # the other three are three looks
    assert sum('corrected for 3 looks' in s and 'of the experts' in s for s in said) == 3
    # two models may be declared too
    pair = what_was_found(stamped, rows, plan=plan | dict(primary=['m1', 'm2']))[1]
    assert 'm1 is not shown to match m2 within 5 points' in pair[0] or 'm1 matches m2' in pair[0]
    assert not any('between m1' in s and 'm2' in s for s in pair[1:])
    with pytest.raises(ValueError, match='got nobody'):
        what_was_found(stamped, rows, plan=plan | dict(primary=['m1', 'nobody']))
    with pytest.raises(ValueError, match='got experts'):
        what_was_found(stamped, plan=plan)


def test_a_recipe_of_several_seeds_against_the_experts_covers():
    rng, recipe, model = np.random.default_rng(5), [], []
    ids = [str(i) for i in range(120)]
    for _ in range(150):
        ease = rng.uniform(-.2, .2, 120)
        rows = answered(15, 120, rng).assign(section='')
        rows['correct'] = rng.random(len(rows)) < .63 + ease[rows.case.astype(int)]
        seeds = [
            made_up('r', rng.random(120) < np.clip(0.63 + ease + rng.normal(0, 0.07), 0, 1), ids)
            for _ in range(4)
        ]
        for store, given in (recipe, seeds), (model, seeds[0]):
            gap = against_experts(given, rows)
            store.append(gap.interval[0] <= 0 <= gap.interval[1])
    assert np.mean(recipe) > .95 - 3 * math.sqrt(.95 * .05 / 150), np.mean(recipe)
    # one training does not speak for its recipe
    assert np.mean(model) < .9, np.mean(model)
    assert '(4 seeds)' in against_experts(seeds, rows).who and 'seeds random' in str(
        against_experts(seeds, rows)
    )


@needs_data
def test_the_published_models_within_which_margin(answers):
    names = sorted(p.name for p in (Path(DATA) / 'published').iterdir())
    gaps = {n: against_experts(published(n), answers) for n in names}
    for name, points in (('gpt2_scratch_neuro_tokenizer', 7.1), ('gpt2-medium_scratch_neuro_tokenizer', 6.2),
                         ('finetune_gpt2', 6.3), ('gpt2', 12.4)):
        assert abs(100 * gaps[name].within - points) < .05
    looks = dict(zip(names, correct_looks(list(gaps.values()))))
    assert [n for n in names if looks[n].found] == ['gpt2_init']
    assert abs(looks['gpt2-large_scratch_neuro_tokenizer'].corrected - .157) < 5e-4
    spread = pilot_spread(published('gpt2_scratch_neuro_tokenizer'), answers)
    measured = gaps['gpt2_scratch_neuro_tokenizer'].error
    assert abs(planned_error(171, 200, 6, spread) / measured - 1) < .02
    assert np.allclose(
        [spread.case, spread.person, spread.answer],
        [Spread().case, Spread().person, Spread().answer],
        atol=6e-4,
    )


# errors in common

def test_the_ceiling_is_what_the_truth_would_reach():
    rng, found = np.random.default_rng(5), []
    for _ in range(40):
        hard, case = rng.uniform(.2, .98, 200), np.tile(np.arange(200), 6)
        rows = pd.DataFrame(
            dict(maker='human', case=case.astype(str), correct=rng.random(1200) < hard[case])
        )
        shares = rows.groupby('case').correct.mean()
        found.append(
            (noise_ceiling(rows), np.corrcoef(shares, hard[shares.index.astype(int)])[0, 1])
        )
    assert abs(np.subtract(*np.mean(found, axis=0))) < .015


def test_correlation_intervals_cover():
    rng, held = np.random.default_rng(6), []
    # Spearman's of a normal pair with correlation .3
    true = 6 / np.pi * np.arcsin(.3 / 2)
    for _ in range(400):
        x = rng.normal(size=200)
        experts = .3 * x + np.sqrt(1 - .09) * rng.normal(size=200)
        row = expert_correlation(pd.DataFrame(dict(m=x, experts=experts))).iloc[0]
        held.append(row.low <= true <= row.high)
    assert .92 < np.mean(held) < .98


def test_who_is_right_counts_every_case():
    scores, rows = world(np.random.default_rng(7), 40, 60)
    table = answers_by_case(scores, rows)
    counts = who_is_right(table)
    assert (
        counts.to_numpy().sum() == 200 and counts.loc['model right'].sum() == scores.correct.sum()
    )
    assert counts['most experts wrong'].sum() == (
        table.share < 0.5
    ).sum() and table.answers.sum() == len(rows)
    assert counts['as many right as wrong'].sum() == (table.share == .5).sum() > 0


def test_the_choice_is_tested_on_logarithms_beside_the_raw_difference():
    rng = np.random.default_rng(0)
    original, learned = rng.uniform(20, 60, 50), rng.normal(.01, .02, 50)
    altered = original * np.exp(rng.normal(.05, .01, 50))
    def scored(o, a):
        return Scores(
            'm', pd.DataFrame(dict(id=[str(i) for i in range(50)], original=o, altered=a)), {}
        )
    boost = finetuning_boost(
        scored(original, altered), scored(original / 2, altered / 2 * np.exp(learned))
    )
    t, p = stats.ttest_1samp(learned, 0)
    assert np.allclose([boost['t_log_choice'], boost['p_log_choice']], [t, p])
    # half of every perplexity: the raw difference shrinks although the ratio grew
    assert boost['t_log_choice'] > 2 and boost['t_choice'] < 0


# figures

def test_figures_leave_nothing_open_and_settings_alone():
    import matplotlib.pyplot as plt
    before, size = plt.get_fignums(), plt.rcParams['font.size']
    table = summary_table(
        [made_up('a', [1, 0, 1]), made_up('a', [1, 1, 1])], Line('experts', 6, 9), 0.9
    )
    fig = plot_accuracy(table)
    plot_calibration({'a': calibration([1, 2, 3], [1, 0, 1])})
    assert plt.get_fignums() == before and plt.rcParams['font.size'] == size
    bars = [p for p in fig.axes[0].patches if abs(p.get_height() - .42) < 1e-9]
    assert (
        [round(b.get_width(), 4) for b in bars] == [0.6667, 1]
        and bars[0].get_hatch()
        and len(bars) == 2
    )


def test_figures_show_the_numbers_of_their_tables():
    import matplotlib.pyplot as plt
    before = plt.get_fignums()
    parts = [made_up(n, [1] * k + [0] * (200 - k)) for n, k in (('one', 120), ('two', 0))]
    groups = {
        s.name: accuracy_by(s.frame.assign(section=['a', 'b'] * 100), 'section') for s in parts
    }
    assert [c.lines[0].get_xdata().tolist() for c in plot_groups(groups).axes[0].containers] == [
        [0.6, 0.6],
        [0, 0],
    ]
    square = pd.DataFrame([[1, .5, .1], [.5, 1, .9], [.1, .9, 1]], list('abc'), list('abc'))
    assert sorted(t.get_text() for t in plot_correlation(square).axes[0].texts) == [
        '0.10',
        '0.50',
        '0.90',
    ]
    assert plot_correlation(square).axes[0].images[0].get_array().tolist() == [[.5, None], [.1, .9]]
    scores, rows = world(np.random.default_rng(8), 40, 60)
    assert len(plot_expertise(rows).axes) == 2
    assert sum(len(c.get_offsets()) for c in plot_beside(answers_by_case(scores,
        rows)).axes[0].collections) == 200
    curve = calibration([1, 2, 3], [1, 0, 1])
    assert len(plot_calibration({str(i): curve for i in range(9)}).axes[0].containers) == 9
    words = ' '.join(t.get_text() for t in plot_accuracy(summary_table(parts, Line('experts', 6, 9),
        .96)).axes[0].texts)
    for part in 'one · 120 of 200', '0.600', 'chance 0.500', 'experts 0.667', 'oracle 0.960':
        assert part in words
    assert len(plot_accuracy(summary_table([])).axes) == 1 and plt.get_fignums() == before


def test_the_figure_of_differences_shows_intervals_and_marks_what_is_shown():
    gaps = [
        Gap('above', 0.12, 0.03),
        Gap('near', 0.01, 0.03, 9),
        Gap('looked at', 0.07, 0.03, corrected=0.2, looks=9),
    ]
    ax = plot_gaps(gaps, .05).axes[0]
    ends = [
        line.get_xdata()
        for line in ax.lines
        if len(line.get_xdata()) == 2 and line.get_linewidth() == 1.5
    ][:3]
    assert np.allclose(ends, [[100 * e for e in g.interval] for g in gaps])
    bold = [line.get_xdata() for line in ax.lines if line.get_linewidth() == 4]
    assert np.allclose([max(abs(b)) for b in bold], [100 * g.within for g in gaps])
    assert [line.get_marker() for line in ax.lines if len(line.get_xdata()) == 1] == ['D', 'o', 'o']
    assert [t.get_text() for t in ax.get_yticklabels()] == ['above', 'near', 'looked at']


def test_a_report_never_calibrates_what_is_all_right(tmp_path):
    page = write_report(
        tmp_path / 'r.html', 'x', evaluation_sections(made_up('m', [1] * 40))
    ).read_text('utf-8')
    assert (
        'all answers are right, so there is nothing to calibrate' in page
        and 'two confidences' not in page
    )


def test_a_declared_comparison_stays_alone_in_the_report(tmp_path):
    scores, rows = world(np.random.default_rng(9), 40, 60)
    plan = dict(
        primary=['model', 'experts'], margin=0.15, declared='2020-01-01T00:00:00+00:00', sha256='s'
    )
    stamp = dict(scored='2021-01-01T00:00:00+00:00', plan_sha256='s')
    models = [
        Scores(n, s.frame, stamp)
        for n, s in (('model', scores), ('other', made_up('o', np.arange(200) % 2)))
    ]
    gaps = gaps_from_experts(models, rows, plan=plan)
    assert gaps[0].corrected is None and gaps[1].corrected is None      # one other look is one look
    sections = evaluation_sections(
        [*models, Scores('third', models[1].frame, stamp)], rows, plan=plan
    )
    assert (
        sections[0][1].startswith('Declared beforehand: model')
        and 'within 15 points' in sections[0][1]
    )
    table = sections[1][2].set_index('who')
    assert table.corrected['model'] == table.p['model'] and table.corrected['third'] == min(
        1, 2 * table.p['third']
    )


@pytest.mark.parametrize('k,n', [(0, 1), (1, 1), (200, 200), (0, 200)])
def test_extreme_scores_draw_and_stay_inside(k, n):
    fig = plot_accuracy(
        summary_table(
            made_up('a rather long name of a model in a paper', [1] * k + [0] * (n - k)),
            Line('experts', n, n),
            1.0,
        )
    )
    fig.canvas.draw()
    width, height = fig.canvas.get_width_height()
    for text in fig.axes[0].texts:
        box = text.get_window_extent()
        assert 0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height, text


# the report

@pytest.fixture(scope='module')
def report(tmp_path_factory):
    table = summary_table(
        [made_up('gpt2-medium_scratch_neuro_tokenizer_spt', [1] * 132 + [0] * 68)],
        Line('experts', 641, 1011),
        0.96,
    )
    curve = calibration(np.arange(200), np.arange(200) % 3 > 0)
    wide = pd.DataFrame({f'column {i}': [i / 7] for i in range(14)})
    return write_report(
        tmp_path_factory.mktemp('report') / 'r.html',
        'A & B <script>alert(1)</script>',
        [
            (
                'Accuracy',
                'One paragraph, <i>as text</i>.',
                table,
                (plot_accuracy(table), 'Bar at 0.660, "experts" at 0.634'),
            ),
            ('Calibration', curve, (plot_calibration({'model': curve}), 'A flat line')),
            ('Wide', wide),
        ],
    )


def test_report_is_one_accessible_file(report):
    page = report.read_text(encoding='utf-8')
    tree = reader.fromstring(page.encode())
    assert (
        tree.get('lang') == 'en'
        and not tree.xpath('//script | //link | //i')
        and len(tree.xpath('//h1')) == 1
    )
    assert all(
        s.startswith('data:image/png;base64,') for s in tree.xpath('//@src')
    ) and not tree.xpath('//@href')
    assert not re.search(r'https?://|@import|url\(', page)
    assert all(a.strip() for a in tree.xpath('//img/@alt')) and len(tree.xpath('//img')) == 2
    assert len(tree.xpath('//table')) == len(tree.xpath('//table/caption')) == 3
    assert all(th.get('scope') in ('col', 'row') for th in tree.iter('th')) and not tree.xpath(
        '//thead//td'
    )
    assert all(th.get('scope') == 'row' for th in tree.xpath('//tbody//th'))
    assert tree.xpath('//img/@alt')[0] == 'Bar at 0.660, "experts" at 0.634'
    ids = tree.xpath('//@id')
    assert len(ids) == len(set(ids)) and set(tree.xpath('//section/@aria-labelledby')) == set(ids)


def test_an_evaluation_holds_every_figure_as_a_table(tmp_path):
    scores, rows = world(np.random.default_rng(9), 40, 60)
    fields = np.array(['one', 'two'])[np.arange(200) % 2]
    rows['section'] = fields[rows.case.astype(int)]
    scores, other = (Scores(s.name, s.frame.assign(section=fields), {})
                     for s in (scores, made_up('other <model>', np.arange(200) % 2)))
    page = write_report(tmp_path / 'r.html', 'x', evaluation_sections([scores, other], rows,
        oracle=.96)).read_text(encoding='utf-8')
    tree = reader.fromstring(page.encode())
    assert [h.text for h in tree.iter('h2')] == [
        'What was found',
        'Against the experts',
        'Accuracy',
        'By subfield',
        'Does it know when it knows?',
        'Are the same cases hard for all?',
        'Who is right where the others are wrong? model',
    ]
    for section in tree.xpath('//section[.//img]'):
        assert section.xpath('.//table'), section.get('aria-labelledby')
    gaps = gaps_from_experts([scores, other], rows)
    assert f'model: points {100 * gaps[0].difference:.3f}' in tree.xpath('//img/@alt')[0]
    first = tree.xpath('//section[h2="What was found"]//p')[0].text_content()
    assert ' '.join(first.split()).startswith(' '.join(match_sentence(gaps[0]).split()))
    assert (
        f'model: accuracy {scores.accuracy:.3f}' in tree.xpath('//img/@alt')[1]
        and 'other &lt;model&gt;' in page
    )
    assert (
        'cases and participants random' in page
        and 'exact McNemar' in page
        and '<model>' not in page
    )
    assert 'corrected for 2 looks' in page
    every = tree.xpath('//table[starts-with(caption, "Every case")]/tbody/tr')
    assert (
        len(every) == 200
        and sum(row.xpath('td[2]/text()') == ['yes'] for row in every) == scores.correct.sum()
    )
    matrix = error_correlation(difficulty([scores, other], rows))
    cells = tree.xpath(
        '//table[starts-with(caption, "Spearman correlation of")]/tbody/tr[1]/td/text()'
    )
    assert cells == [f'{v:.3f}' for v in matrix.loc['model']]


def test_a_section_with_dollars_is_no_formula(tmp_path):
    flat = made_up('model $_$', [1, 0] * 10)
    scores = Scores(flat.name, flat.frame.assign(section=[r'cost $\frac$ x', 'a$_$b'] * 10), {})
    page = write_report(tmp_path / 'r.html', 'x', evaluation_sections(scores)).read_text(
        encoding='utf-8'
    )
    names = [
        h.strip()
        for h in reader.fromstring(page.encode()).xpath(
            '//section[h2="By subfield"]//tbody//th/text()'
        )
    ]
    assert r'cost $\frac$ x' in page and len(names) >= 2


def test_an_evaluation_without_experts_and_with_a_constant_confidence(tmp_path):
    sections = evaluation_sections(made_up('flat', [1, 0] * 10))
    page = write_report(tmp_path / 'r.html', 'x', sections).read_text(encoding='utf-8')
    assert len(sections) == 3 and 'calibration cannot be measured here' in page


@needs_browser
@pytest.mark.parametrize('width', [320, 390, 1280])
def test_report_never_scrolls_sideways(report, tmp_path, width):
    outer = tmp_path / 'outer.html'
    source = report.read_text(encoding='utf-8').replace('&', '&amp;').replace('"', '&quot;')
    outer.write_text(
        f"""<meta charset="utf-8"><body>
        <iframe width="{width}" height="900" style="border:0" srcdoc="{source}"></iframe><script>
        onload = () => {{ const d = document.querySelector('iframe').contentDocument;
        const fits = i => i.naturalWidth > 0 && i.getBoundingClientRect().right <= {width};
        document.body.textContent = 'WIDTH ' + d.documentElement.scrollWidth + ' IMAGES ' + [...d.images].every(fits) }}
        </script>""",
        encoding='utf-8',
    )
    flags = (
        '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run '
        '--disable-background-networking --disable-component-update --disable-sync '
        '--window-size=1400,1000'
    )
    dom = subprocess.run(
        [
            CHROMIUM,
            *flags.split(),
            f'--user-data-dir={tmp_path}/profile',
            '--dump-dom',
            outer.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    found = re.search(r'WIDTH (\d+) IMAGES (\w+)', dom)
    assert found and int(found[1]) <= width and found[2] == 'true', found


def test_a_killed_writer_leaves_the_old_report(tmp_path):
    file = tmp_path / 'r.html'
    write_report(file, 'old', [])
    kept = file.read_bytes()
    code = textwrap.dedent(f"""
        import os, signal
        import domain_llm.experts.report as report
        os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
        report.write_report({str(file)!r}, 'new', [('h', 'x' * 100000)])""")
    assert subprocess.run([sys.executable, '-c', code]).returncode == -signal.SIGKILL
    assert file.read_bytes() == kept
    write_report(file, 'new', [])
    assert b'<h1>new</h1>' in file.read_bytes()


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_a_full_disk_leaves_the_old_report_and_no_litter(tmp_path, monkeypatch, step):
    file = write_report(tmp_path / 'r.html', 'old', [])
    kept = file.read_bytes()
    def full(*_): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError): write_report(file, 'new', [])
    assert file.read_bytes() == kept and os.listdir(tmp_path) == ['r.html']


def test_report_is_readable_by_others_as_the_umask_says(tmp_path):
    old = os.umask(0o022)
    try: file = write_report(tmp_path / 'r.html', 'title', [])
    finally: os.umask(old)
    assert file.stat().st_mode & 0o777 == 0o644
