"""Every table of the paper that its published arrays allow, to all recomputed digits.

The blocks of paper_tables.txt are the recomputed numbers, row by row; a row's first cells say who,
the others are numbers. A number agrees when it rounds to the digits that are written.
"""
import os
import re
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from domain_llm import bench
from domain_llm import experts as ex
from domain_llm.bench.stats import Line, flip_test
from domain_llm.bench.cases import named_file
from domain_llm.bench.losses import PROMPT

DATA = os.environ.get('DOMAIN_LLM_DATA')
pytestmark = pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')
TEXT = (Path(__file__).parent / 'paper_tables.txt').read_text(encoding='utf-8')
BLOCKS = dict(block.split('\n', 1) for block in TEXT.removeprefix('# ').split('\n# '))

# reading the blocks

def rows(block):
    "Split a block into rows of cells."
    return [[c.strip() for c in line.strip('| ').split('|')] for line in block.strip().splitlines()]


def agrees(measured, written):
    "Say whether a number rounds to the digits that are written."
    written = written.replace('−', '-')
    digits, exponent = re.fullmatch(r'([+-]?\d*\.?\d*)(?:e([+-]\d+))?', written).groups()
    unit = 10. ** (int(exponent or 0) - len(digits.partition('.')[2]))
    return abs(measured - float(written)) <= 0.5 * unit * (1 + 1e-6) + 1e-15


def check(measured, written):
    "Compare a row of numbers with a row of cells and say which differ."
    measured = [float(m) for m in measured]
    assert len(measured) == len(written)
    wrong = [(m, w) for m, w in zip(measured, written) if not agrees(m, w)]
    assert not wrong, wrong


def by_id(block):
    "Make what `parametrize` takes of a block's rows."
    return dict(argvalues=rows(block), ids=[' '.join(r[:2]) for r in rows(block)])


published = lru_cache(ex.published_scores)
MAKERS = dict(human='human', machine='gpt4')
FIELDS = [
    'Behavioral/Cognitive',
    'Systems/Circuits',
    'Neurobiology of Disease',
    'Cellular/Molecular',
    'Development/Plasticity/Repair',
]


@pytest.fixture(scope='module')
def answers():
    "Read the answers to both sets, and say of each by its case's id who made the case."
    both = bench.load_responses('brainbench')
    return both.assign(maker=both.case.str.partition('-')[0])


def line_of(rows): return Line('', int(rows.correct.sum()), len(rows))


def test_the_check_notices_a_wrong_last_digit():
    assert (
        agrees(0.12345, '0.1235')
        and agrees(-0.5, '−.5')
        and agrees(1.4474e-1, '1.4474e-01')
        and agrees(3, '3')
    )
    assert (
        not agrees(0.12356, '0.1235') and not agrees(1.4476e-1, '1.4474e-01') and not agrees(4, '3')
    )
    assert not agrees(float('nan'), '1')


# 2.1 accuracies

@pytest.mark.parametrize('row', **by_id(BLOCKS['2.1 models']))
def test_accuracy_of_the_models(row):
    s = published(row[0])
    line, a, b = line_of(s.frame), s.frame.original, s.frame.altered
    check(
        [
            line.k,
            line.accuracy,
            line.se,
            a.mean(),
            a.median(),
            b.mean(),
            (b - a).mean(),
            a.sum() + b.sum(),
        ],
        row[1:],
    )


@pytest.mark.parametrize('model,p', [
    ('gpt2', '.0400'), ('gpt2_scratch', '.0281'), ('gpt2_scratch_neuro_tokenizer', '4.99e-4'),
    ('finetune_gpt2', '1.64e-4'), ('gpt2-large_scratch_neuro_tokenizer', '4.0e-10'),
    ('gpt2_init', '.289')])
def test_exact_binomial_against_guessing(model, p):
    correct = published(model).correct
    # a coin per case: the same exact test
    check([flip_test(np.where(correct, 1, -1))], [p])


@pytest.mark.parametrize('model,counts', [
    ('gpt2', (2, 4, 12, 50)), ('gpt2_scratch', (4, 10, 13, 57)), ('finetune_gpt2', (1, 8, 14, 48)),
    ('gpt2_scratch_neuro_tokenizer', (0, 5, 11, 52)),
    ('gpt2-medium_scratch_neuro_tokenizer', (2, 7, 10, 52)),
    ('gpt2-large_scratch_neuro_tokenizer', (1, 3, 7, 45))])
def test_cases_that_hang_on_a_hair(model, counts):
    margin = abs(ex.difficulty([published(model)])[model])
    assert tuple(int((margin < limit).sum()) for limit in (1e-4, 5e-4, 1e-3, 5e-3)) == counts


@pytest.fixture(scope='module')
def sizes():
    "Count the scored tokens of both versions with both vocabularies, and the originals' bytes."
    from domain_llm.tokens.tokenizer import load_tokenizer
    table = pd.read_csv(named_file('BrainBench_Human_v0.1.csv'))
    found = dict(
        bytes=np.array([len((PROMPT + t).strip().encode()) for t in table.original_abstract])
    )
    for name in 'gpt2', 'neuro':
        tokenizer = load_tokenizer(Path(DATA) / 'tokenizers' / name)
        found[name] = [
            np.array([len(tokenizer.encode((PROMPT + t).strip()).ids) - 1 for t in table[c]])
            for c in ('original_abstract', 'incorrect_abstract')
        ]
    return found


@pytest.mark.parametrize('model,accuracy,bits', [
    ('gpt2', '.5500', '0.9050'), ('gpt2_scratch', '.5400', '0.9722'),
    ('finetune_gpt2', '.6200', '0.7936'), ('finetune_gpt2_lr2e-6', '.6000', '0.8588'),
    ('gpt2_scratch_neuro_tokenizer', '.6100', '1.0001'),
    ('gpt2-medium_scratch_neuro_tokenizer', '.6450', '0.8263'),
    ('gpt2-large_scratch_neuro_tokenizer', '.7300', '0.7323'),
    ('gpt2_scratch_neuro_tokenizer_spt', '.6200', '1.0004'),
    ('gpt2-medium_scratch_neuro_tokenizer_spt', '.6500', '0.8247'),
    ('gpt2-medium', '.6250', '0.8153'), ('gpt2-large', '.6400', '0.7812')])
def test_summed_choice_and_bits_per_byte(sizes, model, accuracy, bits):
    a, b = sizes['neuro' if 'neuro' in model else 'gpt2']
    frame = published(model).frame
    nats = np.log(frame.original) * a, np.log(frame.altered) * b
    check(
        [(nats[0] < nats[1]).mean(), nats[0].sum() / np.log(2) / sizes['bytes'].sum()],
        [accuracy, bits],
    )


# 2.3 isolated sentences

@pytest.mark.parametrize('row', **by_id(BLOCKS['2.3 isolated sentences']))
def test_isolated_sentences(row):
    s = published(row[0], isolated=True)
    line, f = line_of(s.frame), s.frame.assign(margin=np.log(s.frame.altered / s.frame.original))
    each = f.groupby('abstract').agg(share=('correct', 'mean'), margin=('margin', 'mean'))
    k, n = map(int, row[5].split('/'))
    assert (line.k, line.n, int((f.original == f.altered).sum()), len(each)) == (k, n, 0, 200)
    check([n, 0, published(row[0]).accuracy], row[2:5])
    check(
        [
            line.accuracy,
            line.se,
            each.share.mean(),
            (each.share > 0.5).mean(),
            (each.share == 1).mean(),
            (each.margin > 0).mean(),
        ],
        row[6:],
    )


def test_sentences_lie_in_the_subfield_of_their_abstract():
    whole, parts = (
        published('gpt2_scratch_neuro_tokenizer', isolated=i).frame for i in (False, True)
    )
    assert (whole.set_index('id').section[parts.abstract].to_numpy() == parts.section).all()
    assert parts.abstract.value_counts().value_counts().sort_index().tolist() == [
        45,
        77,
        41,
        24,
        8,
        5,
    ]


# 2.5 humans

HUMANS_2_5 = {
    maker: block.split() for maker, block in dict(
        human="""641 1011 0.634026 0.015150 86 130 0.661538 0.041501 267 0.726592 0.631054 0.633138
                 0.015452 0.677500 27.4421 43.8536 0.163384 1.75e-07 0.093820 2.83e-03""",
        gpt4="""351 503 0.697813 0.020475 47 61 0.770492 0.053842 140 0.735714 0.706599 0.698039
                0.020625 0.780000 27.3042 46.7078 0.169629 1.32e-04 0.011203 .802""").items()
}


def upper_of(answers, maker):
    "Keep those with the most expertise of all answers, and of them the answers to one set."
    upper = ex.top_experts(answers)
    return upper[upper.maker == maker]


@pytest.mark.parametrize('maker', HUMANS_2_5)
def test_humans(answers, maker):
    rows_ = answers[answers.maker == maker]
    line, top, upper = (
        ex.human_accuracy(rows_),
        ex.human_accuracy(ex.top_experts(rows_, published=True)),
        ex.human_accuracy(upper_of(answers, maker)),
    )
    case, person = rows_.groupby('case').correct.mean(), rows_.groupby('person').correct.mean()
    vote = np.where(case > .5, 1, np.where(case < .5, 0, .5)).mean()
    trust, skill = (stats.spearmanr(rows_[c], rows_.correct) for c in ('confidence', 'expertise'))
    check(
        [
            line.k,
            line.n,
            line.accuracy,
            line.se,
            top.k,
            top.n,
            top.accuracy,
            top.se,
            upper.n,
            upper.accuracy,
            case.mean(),
            person.mean(),
            stats.sem(person),
            vote,
            rows_.expertise.mean(),
            rows_.confidence.mean(),
            *trust,
            *skill,
        ],
        HUMANS_2_5[maker],
    )


@pytest.mark.parametrize('maker,empty,kept,all_ties,last', [
    ('human', 70, 142, '0.683099', (130, '0.692308')),
    ('gpt4', 39, 63, '0.777778', (61, '0.770492'))])
def test_what_the_published_rule_for_top_experts_does(answers, maker, empty, kept, all_ties, last):
    rows_ = answers[answers.maker == maker]
    assert int((rows_.groupby('case').size() < 5).sum()) == empty
    assert rows_.case.nunique() - ex.top_experts(rows_, published=True).case.nunique() == empty
    ties = pd.concat(
        [g.nlargest(int(0.2 * len(g)), 'expertise', keep='all') for _, g in rows_.groupby('case')]
    )
    assert len(ties) == kept
    end = ex.human_accuracy(ex.top_experts(rows_[::-1], published=True))
    check([ties.correct.mean(), end.n, end.accuracy], [all_ties, str(last[0]), last[1]])


def test_who_answered_how_much(answers):
    assert answers.person.value_counts().value_counts().to_dict() == {
        9: 154,
        8: 14,
        7: 2,
        2: 1,
    }
    for maker, low, high, mean in ('human', 1, 9, '5.055'), ('gpt4', 2, 9, '5.03'):
        trials = answers[answers.maker == maker].case.value_counts()
        assert (trials.min(), trials.max()) == (low, high)
        check([trials.mean()], [mean])
    raw = pd.read_csv(Path(DATA) / 'brainbench' / 'participant_data.csv')
    assert len(raw) == 1514 and not raw.recognised.any()
    people = raw.drop_duplicates('pid')
    check(
        [
            len(people),
            people.age.mean(),
            people.age.std(),
            people.experience.mean(),
            people.country.nunique(),
        ],
        ['171', '35.152', '9.398', '10.096', '22'],
    )
    assert sorted(people.sex.value_counts()) == [1, 4, 59, 107]
    wanted = ('human', 692, '0.644509', '73155'), ('machine', 347, '0.714697', '81920')
    for maker, n, accuracy, time in wanted:
        mine = raw[raw.journal_section.str.startswith(maker)]
        stayed = mine[mine.click_outside.isna()]
        assert len(stayed) == n
        check([stayed.correct.mean(), mine.rt.median()], [accuracy, time])


@pytest.mark.parametrize('row', **by_id(BLOCKS['2.5 humans by subfield']))
def test_humans_by_subfield(answers, row):
    field = answers[(answers.maker == MAKERS[row[0]]) & (answers.section == row[1])]
    line, top = ex.accuracy_by(field, 'section').iloc[0], line_of(ex.top_experts(field))
    check(
        [
            line.n,
            line.correct,
            line.accuracy,
            line.se,
            field.expertise.quantile(0.8),
            top.n,
            top.accuracy,
            top.se,
            field.expertise.mean(),
        ],
        row[2:],
    )


@pytest.mark.parametrize('row', **by_id(BLOCKS['2.5 humans by position']))
def test_humans_by_position(answers, row):
    mine = answers[answers.position.str.startswith(row[0])]
    if not len(mine): mine = answers[answers.position == row[0]]
    check([len(mine), len(mine) / len(answers), mine.person.nunique()], row[1:4])
    for maker, (count, *numbers) in (('human', row[4:7]), ('gpt4', row[7:10])):
        line = ex.accuracy_by(mine[mine.maker == maker], 'position').iloc[0]
        assert f'{line.correct}/{line.n}' == count
        check([line.accuracy, line.se], numbers)


@pytest.mark.parametrize('row', **by_id(BLOCKS['2.5 humans by expertise']))
def test_humans_by_expertise(answers, row):
    mine = answers[answers.maker == MAKERS[row[0]]]
    if row[1] != 'Overall': mine = mine[mine.section == row[1]]
    fit, bins = (
        ex.calibration_slope(mine.expertise, mine.correct, 4),
        ex.rank_bins(mine.expertise, mine.correct, 4)[1],
    )
    check([len(mine), *bins, fit.slope, fit.rvalue, fit.pvalue], row[2:])


# 2.6 models by subfield

@pytest.mark.parametrize('row', **by_id(BLOCKS['2.6 models by subfield']))
def test_models_by_subfield(row):
    table = ex.accuracy_by(published(row[0]).frame, 'section').set_index('section')
    assert [int(n) for n in table.n[FIELDS]] == [75, 51, 25, 25, 24]
    check(table.accuracy[FIELDS], row[1:])


# 2.7 calibration by bins

def pair_of(who, answers):
    "Find confidence and correctness of a model or of the experts."
    if not who.startswith('Human'): return abs(published(who).margin), published(who).correct
    mine = answers[answers.maker == ('gpt4' if 'GPT-4' in who else 'human')]
    return mine.confidence.to_numpy(float), mine.correct.to_numpy()


@pytest.mark.parametrize('row', **by_id(BLOCKS['2.7 calibration by bins']))
def test_calibration_by_bins(answers, row):
    confidence, correct = pair_of(row[0], answers)
    fit, n, bins = ex.calibration_slope(confidence, correct, int(row[1])), len(correct), int(row[1])
    check(
        [bins, n, fit.slope, fit.slope * n / bins, fit.intercept, fit.rvalue, fit.pvalue], row[1:]
    )


# 2.8 calibration by logistic regression

TOGETHER = BLOCKS['2.8 logistic, the four of the paper']
EACH_ALONE = BLOCKS['2.8 logistic, each alone']
ALL = by_id(EACH_ALONE + TOGETHER.strip().splitlines()[-1])


@pytest.mark.parametrize('row', **ALL)
def test_logistic_maximum_likelihood(answers, row):
    fit = ex.logistic(*pair_of(row[0], answers))
    check([fit.slope, fit.error, fit.z, fit.p], row[8:])


@pytest.mark.parametrize('row', **ALL)
def test_logistic_ridge(answers, row):
    LogisticRegression = pytest.importorskip('sklearn.linear_model').LogisticRegression
    confidence, correct = pair_of(row[0], answers)
    as_published = LogisticRegression(random_state=42).fit(confidence[:, None], correct)
    # where the solver stopped
    check([as_published.coef_[0, 0], as_published.intercept_[0]], row[6:8])
    ours, exact = ex.logistic(confidence, correct, ridge=1), LogisticRegression(tol=1e-10,
        max_iter=10000).fit(confidence[:, None], correct)
    # where the optimum is
    assert np.allclose(
        [ours.slope, ours.intercept], [exact.coef_[0, 0], exact.intercept_[0]], atol=2e-6
    )
    assert abs(ours.slope - float(row[6])) < .004 * abs(ours.slope)


def sklearn_draws(LogisticRegression, pairs):
    "Run the published five draws with the published fit."
    rng, found = np.random.RandomState(42), []
    for confidence, correct in pairs:
        draws = [rng.choice(len(correct), int(.8 * len(correct)), replace=False) for _ in range(5)]
        fits = [
            LogisticRegression(random_state=42).fit(confidence[i][:, None], correct[i])
            for i in draws
        ]
        slopes = [f.coef_[0, 0] for f in fits]
        t, p = stats.ttest_1samp(slopes, 0)
        found.append(
            [np.mean(slopes), stats.sem(slopes), np.mean([f.intercept_[0] for f in fits]), t, p / 2]
        )
    return found


@pytest.mark.parametrize('block', [TOGETHER, *EACH_ALONE.strip().splitlines()],
                         ids=['the four of the paper', *(r[0] for r in rows(EACH_ALONE))])
def test_logistic_five_draws(answers, block):
    LogisticRegression = pytest.importorskip('sklearn.linear_model').LogisticRegression
    names = [r[0] for r in rows(block)]
    pairs = [pair_of(n, answers) for n in names]
    for row, found in zip(rows(block), sklearn_draws(LogisticRegression, pairs)):
        check(found, row[1:6])
    ours = ex.logistic_draws(dict(zip(names, pairs)))
    for row, found in zip(rows(block), ours.itertuples()):
        assert abs(found.slope - float(row[1])) < .01 * abs(found.slope)
        assert abs(found.t - float(row[4])) < .02 * abs(found.t)
        assert abs(found.p - float(row[5])) < .1 * found.p and found.se > 0


# 2.9 error correlation

@pytest.mark.parametrize('row', **by_id(BLOCKS['2.9 errors in common with experts']))
def test_error_correlation_with_experts(row):
    s = published(row[0])
    human = bench.load_responses('brainbench-human')
    (whole,), (binary,) = (ex.expert_correlation(ex.difficulty([s], human, how=h)).itertuples()
                           for h in ('published', 'correct'))
    check([whole.rho, whole.p, binary.rho], row[1:4])


def test_error_correlation_between_models():
    names = [r[0] for r in rows(BLOCKS['2.9 errors in common with models'])]
    matrix = ex.error_correlation(ex.difficulty([published(n) for n in names], how='published'))
    for i, row in enumerate(rows(BLOCKS['2.9 errors in common with models'])):
        cells = [c for c in row[1:] if c]
        assert len(cells) == i
        check(matrix.iloc[i, :i], cells)


# 2.10 finetuning boost

NAMES = {'finetune lr2e-6': 'finetune_gpt2_lr2e-6', 'neuro124': 'gpt2_scratch_neuro_tokenizer'}


@pytest.mark.parametrize('row', **by_id(BLOCKS['2.10 finetuning boost']))
def test_finetuning_boost(row):
    before, after = (published(NAMES.get(n, n)) for n in row[0].split(' → '))
    boost = ex.finetuning_boost(before, after)
    check([before.accuracy, after.accuracy], row[1].split('→'))
    check([before.frame.original.mean(), after.frame.original.mean()], row[2].split('→'))
    t_choice, p_choice = row[7].rstrip(')').split(' (')
    check([boost[k] for k in ('t', 'p', 'd_paired', 'd_pooled', 't_choice', 'p_choice')],
          [*row[3:7], t_choice, p_choice])


# 2.13 zlib and perplexity, as far as the arrays are published

@pytest.fixture(scope='module')
def originals(): return pd.read_csv(named_file('BrainBench_Human_v0.1.csv'))


@pytest.mark.parametrize('row', **by_id(BLOCKS['2.13 zlib']))
def test_zlib_and_perplexity(originals, row):
    s = published(row[0])
    found = ex.zlib_table(s, originals.original_abstract)
    sizes = [len(zlib.compress((PROMPT + t).strip().encode())) for t in originals.original_abstract]
    check([found['n'], len(set(zip(s.frame.original, sizes))), *list(found.values())[1:]], row[2:])


def test_zlib_as_a_classifier(originals):
    a, b = (np.array([len(zlib.compress((PROMPT + t).strip().encode())) for t in originals[c]])
            for c in ('original_abstract', 'incorrect_abstract'))
    plain = ex.zlib_table(published('gpt2'), originals.original_abstract, prompt='')
    check([(a < b).mean(), (a == b).mean(), plain['mean_zlib']], ['0.445', '.17', '734.38'])


# the GPT-4-made cases: only people answered them in the published data

def test_case_numbers_are_matched_by_doi(answers):
    lines = (Path(DATA) / 'brainbench' / 'abstract_id_doi.csv').read_text(encoding='utf-8',
        errors='replace').splitlines()[1:]
    doi_of = {number: doi for doi, number, *_ in (line.split(';') for line in lines)}
    own = pd.read_csv(named_file('BrainBench_GPT-4_v0.1.csv')).doi
    found = bench.case_ids('gpt4')
    assert len(found) == 100 and sorted(found.values(), key=int) == [str(i + 1) for i in range(100)]
    assert all(doi_of[number] == own[int(i) - 1] for number, i in found.items())
    assert bench.case_ids('human') == {str(i): str(i) for i in range(1, 201)}
    asked = answers.case[answers.maker == 'gpt4'].str.removeprefix('gpt4-')
    assert set(asked) == set(found.values())
