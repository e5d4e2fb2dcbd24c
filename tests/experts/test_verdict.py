"""What the rooms of people cannot show: properties, oracles, coverage, crashes, a real browser.

The tables of the paper stand in test_paper_tables.py.
"""
import math, os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from domain_llm.bench.equivalence import Spread, planned_error
from domain_llm.bench.looks import correct_looks
from domain_llm.bench.stats import Line, format_p, two_proportions
from domain_llm.bench.scores import Scores
from domain_llm.experts.people import human_accuracy
from domain_llm.experts.report import evaluation_sections
from domain_llm.bench.responses import load_responses
from domain_llm.experts.verdict import (
    against_experts, answers_by_case, compare, difficulty, expert_correlation,
    finetuning_boost, gaps_table, pilot_spread, published_scores, state_verdict,
    summary_table, what_was_found, who_is_right)
from small_worlds import answered, made_up, world

DATA = os.environ.get('DOMAIN_LLM_DATA')
needs_data = pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')


published = published_scores


# against the raw file and the paper's tests

@pytest.fixture(scope='module')
def answers(): return load_responses('brainbench-human')


@needs_data
@pytest.mark.parametrize('model,k,z,p', [
    ('gpt2_init', 92, -4.6006, 4e-6), ('gpt2', 115, -1.5748, .1153),
    ('gpt2_scratch', 116, -1.4421, .1493), ('finetune_gpt2', 127, .0261, .9791),
    ('finetune_gpt2_lr2e-6', 123, -.5095, .6104),
    ('gpt2_scratch_neuro_tokenizer', 125, -.2419, .8089),
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

@pytest.mark.parametrize('people,each', [(171, 8), (40, 60), (12, 150)])
def test_the_crossed_intervals_cover(people, each):
    rng, gaps, lines, naive = np.random.default_rng(people), [], [], []
    while len(gaps) < 200:
        scores, rows = world(rng, people, each)
        gap, line = against_experts(scores, rows), human_accuracy(rows)
        gaps.append(gap.interval[0] < .07 < gap.interval[1])
        lines.append(line.interval[0] < .63 < line.interval[1])
        naive.append(abs(line.accuracy - .63) < 1.96 * line.se)
    assert .915 < np.mean(gaps) < .985, np.mean(gaps)
    assert .915 < np.mean(lines) < .99, np.mean(lines)
    assert people > 20 or np.mean(naive) < .7, np.mean(naive)


def test_against_experts_by_the_long_way():
    scores, rows = world(np.random.default_rng(3), 40, 50)
    gap, n, cases = against_experts(scores, rows), len(rows), len(scores.frame)
    m, e = scores.frame.set_index('id').correct, rows.correct - rows.correct.mean()
    by_case = [(m[c] - m.mean()) / cases - e[rows.case == c].sum() / n for c in m.index]
    by_person = [e[rows.person == p].sum() / n for p in rows.person.unique()]
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
    with pytest.raises(ValueError, match='got 0 cases of model twice and 0 answers'):
        against_experts(scores, rows.assign(case='x' + rows.case))
    with pytest.raises(ValueError, match='got [12] cases of model twice'):
        against_experts(Scores('model', pd.concat([scores.frame, scores.frame[:1]]), {}), rows)
    # a part of the cases is fine
    against_experts(Scores('model', scores.frame[:50], {}), rows)
    with pytest.raises(ValueError, match='another subfield'):
        other = Scores('m', scores.frame.assign(section='here'), {})
        against_experts(other, rows.assign(section='there'))
    # a file that does not say its subfields is no other exam
    half = rows.assign(section=np.where(np.arange(len(rows)) % 2, 'here', None))
    assert against_experts(other, half).difference == against_experts(scores, rows).difference


def test_answers_to_cases_that_were_not_scored_count_nowhere():
    scores, rows = world(np.random.default_rng(3), 40, 50)
    part, other = (Scores(n, scores.frame[:50], {}) for n in ('model', 'other'))
    rows.attrs['left_out'] = [dict(why='late', people=1, answers=2)]
    own = rows[rows.case.isin(part.frame.id)]
    assert state_verdict(part, rows) == state_verdict(part, own)
    for models in [part], [part, other]:
        (table, said), (alone, same) = (what_was_found(models, r) for r in (rows, own))
        assert table.equals(alone) and said == same
        assert table.set_index('who').n['experts'] == len(own) < len(rows)
    _, told, left_out = evaluation_sections(part, rows)[-1]
    assert told.startswith(f'{len(own)} answers count') and left_out.answers.tolist() == [2]


def test_cases_that_nobody_answered_count_on_neither_side_and_are_told():
    scores, rows = world(np.random.default_rng(3), 40, 50)
    some = rows[~rows.case.isin(['7', '8'])]
    part = Scores('model', scores.frame[~scores.frame.id.isin(['7', '8'])], {})
    assert against_experts(scores, some) == against_experts(part, some)
    told = 'The comparison leaves out 2 of 200 cases, which no expert answered.'
    assert told in state_verdict(scores, some) and 'leaves out' not in state_verdict(part, some)
    assert len(answers_by_case(scores, some)) == len(difficulty([scores], some)) == 198


@needs_data
def test_the_other_set_cannot_be_taken_for_this_one(answers):
    cases = pd.read_csv(Path(DATA) / 'brainbench' / 'BrainBench_GPT-4_v0.1.csv')
    scores = made_up('m', np.arange(100) % 3 > 0, [str(i + 1) for i in range(100)])
    scores = Scores('m', scores.frame.assign(section=cases.journal_section), {})
    others = load_responses('brainbench-gpt4')
    table = answers_by_case(scores, others)
    assert len(table) == 100 and (table.answers.sum(), table.right.sum()) == (503, 351)
    raw = pd.read_csv(Path(DATA) / 'brainbench' / 'participant_data.csv')
    human_number = {
        doi: i
        for i, doi in enumerate(
            pd.read_csv(Path(DATA) / 'brainbench' / 'BrainBench_Human_v0.1.csv').doi, 1
        )
    }
    for row, doi in zip(table.itertuples(), cases.doi):
        mine = raw[raw.journal_section.str.startswith('machine')
                   & (raw.abstract_id == human_number[doi])]
        assert (row.answers, row.right) == (len(mine), mine.correct.sum())
    assert math.isclose(against_experts(scores, others).difference, scores.accuracy - 351 / 503)
    with pytest.raises(ValueError, match='another subfield'):
        answers_by_case(scores, answers)


# the experts' intervals and verdicts

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


# few equal answers

@pytest.mark.parametrize('given', [True, False])
def test_a_few_equal_answers_make_nobody_certain(given):
    ids = ['1', '2', '3']
    rows = pd.DataFrame([(p, c, given) for p in 'ab' for c in ids],
                        columns=['person', 'case', 'correct'])
    model = made_up('m', [True] * 3, ids)
    least = math.sqrt(2) / (3 + 2)
    for scores in model, [model] * 3:
        assert math.isclose(against_experts(scores, rows).error, least)
    for people in rows, Line('experts', 3 * given, 3), human_accuracy(rows):
        assert 'is not shown to match the experts within 5 points' in state_verdict(
            model, people, .05)


def test_a_declared_match_of_two_models_ten_points_apart_is_rarely_said():
    rng, said = np.random.default_rng(0), []
    plan = dict(primary=['tuned', 'base'], margin=.05, declared='2020-01-01', sha256='x')
    for _ in range(100):
        base = rng.random(10) < .6
        pair = [made_up('tuned', base | (rng.random(10) < .25)), made_up('base', base)]
        said.append('tuned matches base' in what_was_found(pair, plan=plan)[1][0])
    assert np.mean(said) <= .05


def test_a_line_that_knows_its_error_keeps_it():
    scores, rows = world(np.random.default_rng(3), 4, 150)
    line = human_accuracy(rows)
    counted, known = (state_verdict(scores, x) for x in (Line('experts', line.k, line.n), line))
    assert 'single answers (only counts are known) random' in counted
    assert 'cases and participants (only counts are known) random' in known
    error = math.hypot(scores.line.se, line.error)
    within = abs(scores.accuracy - line.accuracy) + stats.t.ppf(.95, line.df) * error
    assert f'is within {100 * within:.1f} points' in known


def test_two_models_of_one_name_are_refused():
    pair = [made_up('model', np.arange(40) % k > 0) for k in (2, 3)]
    for show in (lambda: what_was_found(pair), lambda: evaluation_sections(pair),
                 lambda: what_was_found(pair[0], others=pair[1:]), lambda: difficulty(pair)):
        with pytest.raises(ValueError, match='got model twice: score with `name=`'): show()


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
        for store, scores in (recipe, seeds), (model, seeds[0]):
            gap = against_experts(scores, rows)
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
    points_of = {
        'gpt2_scratch_neuro_tokenizer': 7.1, 'gpt2-medium_scratch_neuro_tokenizer': 6.2,
        'finetune_gpt2': 6.3, 'gpt2': 12.4}
    for name, points in points_of.items():
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


