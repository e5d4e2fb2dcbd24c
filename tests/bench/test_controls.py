"""Controls, and what a referee asks of a benchmark."""
import numpy as np
import pytest
import torch

from domain_llm.bench import scores
from domain_llm.bench.cases import make_cases
from domain_llm.bench.controls import check_cases, guessers, run_controls, write_harness_task
from domain_llm.bench.scores import score_cases, score_texts
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.text.synthetic import Case, SyntheticScience
from domain_llm.tokens.tokenizer import train_tokenizer

pytestmark = pytest.mark.usefixtures('one_thread')


def test_untrained_models_guess():
    cases = SyntheticScience(0).cases()
    tokenizer = train_tokenizer([c.original for c in cases], 600)
    right = []
    for seed in range(5):
        torch.manual_seed(seed)
        right.append(
            score_cases(
                GPT2(GPT2Config.preset('toy', tokenizer.get_vocab_size())),
                tokenizer,
                cases,
                prompt='',
            ).accuracy
        )
    assert abs(np.mean(right) - 0.5) < 3 * 0.5 / (5 * len(cases)) ** 0.5


def test_the_controls_pass_on_a_sound_benchmark_and_notice_a_broken_score(monkeypatch):
    cases = SyntheticScience(0).cases()
    tokenizer = train_tokenizer([c.original for c in cases], 600)
    table = run_controls(cases, tokenizer, corpus=SyntheticScience(0).papers()[:1000]).set_index(
        'control'
    )
    assert table.ok[['untrained, mean over seeds', 'last untrained, labels exchanged', 'oracle']].all()
    inner = scores.pair_losses   # a leak: the original is scored a little too well
    monkeypatch.setattr(scores, 'pair_losses', lambda *a: ((a_ - 0.05, b_) for a_, b_ in inner(*a)))
    broken = run_controls(cases, tokenizer).set_index('control')
    assert (
        not broken.ok['untrained, mean over seeds']
        and not broken.ok['last untrained, labels exchanged']
    )


def test_a_benchmark_with_a_tell_is_reported():
    texts = [
        f'We asked about topic {i}. We waited for a week. It [[rose,did not rise at all]] in '
        f'number {i}.'
        for i in range(30)
    ]
    table = check_cases(make_cases(texts), corpus=['nothing of the kind ' * 5]).set_index('check')
    assert (not table.ok['length balance'] and not table.ok['guesser: shorter text']
            and table.ok['not in the corpus'] and table.ok['no edit in the opening sentence'])
    fair = [
        f'We asked about topic {i}. We waited for a week. It '
        f'[[{"rose,fell" if i % 2 else "fell,rose"}]] in number {i}.'
        for i in range(30)
    ]
    table = check_cases(make_cases(fair), corpus=[make_cases(fair)[4].original]).set_index('check')
    assert (table.ok['length balance'] and not table.ok['not in the corpus']
            and 'case' in table.found['not in the corpus'])


@pytest.mark.parametrize('cases, word', [
    ([], 'at least one case'),
    ([Case('1', 'it rose', 'it fell'), Case('1', 'it ran', 'it sat')], 'case 1: every id should occur once'),
    ([Case('1', 'it rose', 'it fell'), Case('x', 'it rose', 'it rose')], 'case x: .*the same'),
    ([Case('x', ' ', 'it rose')], 'case x: .*empty'),
    ([Case('x', 'it [[rose,fell]]', 'it fell')], 'case x: .*plain text')])
def test_cases_made_in_code_are_checked_as_those_of_a_file(small, cases, word, tmp_path):
    _, tokenizer, model = small
    for use in (lambda: score_cases(model, tokenizer, cases), lambda: score_texts('length', len, cases),
                lambda: check_cases(cases),
                lambda: write_harness_task(tmp_path / 'task', cases)):
        with pytest.raises(ValueError, match=word): use()
    assert not (tmp_path / 'task').exists()


def test_edits_in_the_opening_or_over_the_end_of_a_sentence_are_reported():
    fine = [f'We asked about {t}. We waited. It [[rose,fell]].' for t in ('rats', 'mice', 'fish')]
    found = lambda texts: (
        check_cases(make_cases(texts)).set_index('check').loc['no edit in the opening sentence']
    )
    assert found(fine).ok
    for bad in ('We [[asked,knew]] about rats. We waited. It rose.',
                'We asked about rats. We [[waited. It rose,waited until it fell]].'):
        row = found(fine + [bad])
    assert not row.ok and row.found.endswith('1 of 4 have one, or one across sentences: case 4')


@pytest.mark.parametrize('ids', [['1', '2', '3'], ['c', 'a', 'b', 'e', 'd']])
def test_guessers_answer_every_case_in_order_and_never_from_their_own_half(ids):
    cases = [
        Case(i, f'it {w} much', f'it {w} little')
        for i, w in zip(ids, ('rose', 'fell', 'ran', 'sat', 'slept'))
    ]
    found = guessers(cases)
    assert all(s.frame['id'].tolist() == ids for s in found.values())
    assert found['word unigram'].accuracy == 1   # "much" stands in the other half's originals
    lone = guessers([Case(i, f'it {a}', f'it {b}') for i, a, b in zip('wxyz', 'abcd', 'efgh')])['word unigram']
    assert (lone.margin == 0).all()   # nobody learns from the case itself
    table = guessers(cases[:2], corpus=['it rose little', 'it fell little'])
    assert (
        table['word trigram'].accuracy == 0
        and table['word trigram'].meta['counted_in'] == 'the corpus'
    )


def test_four_guessers_pay_for_four_looks():
    # one guesser just beyond its own 5 %: 115 of 200 is p = .04, and one of four such looks is expected to be
    rng = np.random.default_rng(0)
    named = []
    for seed in range(60):
        words = [''.join(rng.choice([*'abcdefghijkl'], rng.integers(3, 8))) for _ in range(40)]
        rows = [rng.choice(words, 9, replace=False).tolist() for _ in range(80)]
        cases = [
            Case(str(i), ' '.join(r[:-1]), ' '.join([*r[:4], r[-1], *r[5:-1]]))
            for i, r in enumerate(rows)
        ]
        table = check_cases(cases).set_index('check')
        named.append(not table.ok[[i for i in table.index if i.startswith('guesser')]].all())
    assert np.mean(named) <= .05 + 3 * (.05 * .95 / 60)**.5
