"""Scores against a plain loop with transformers."""
import json, os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from small_models import Reversed, random_model

from domain_llm.bench import scores as scores_module
from domain_llm.bench.cases import load_cases
from domain_llm.bench.losses import PROMPT, encode_version, perplexity, token_losses
from domain_llm.bench.scores import Scores, paper_labels, score_cases, score_texts, zlib_length
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.model.weights import save_model
from domain_llm.text.synthetic import Case, SyntheticScience
from domain_llm.tokens.ngram import NGram
from domain_llm.tokens.tokenizer import train_tokenizer

DATA = os.environ.get('DOMAIN_LLM_DATA')
needs_data = pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')
pytestmark = pytest.mark.usefixtures('one_thread')


def test_the_papers_order_of_versions():
    assert paper_labels(200).sum() == 98 and paper_labels(100).sum() == 47
    assert paper_labels(200)[:10].tolist() == [0, 1, 1, 1, 0, 0, 0, 1, 1, 1]


@needs_data
@pytest.mark.parametrize('model', sorted(p.name for p in (Path(DATA or '.') / 'published').glob('*')
                                         if (p / 'labels.npy').exists()) if DATA else [])
def test_the_papers_labels_are_the_stored_ones(model):
    assert (np.load(Path(DATA) / 'published' / model / 'labels.npy') == paper_labels(200)).all()


def test_scores_equal_a_plain_loop_with_transformers(tmp_path):
    cases = SyntheticScience(0).cases()[:5]
    tokenizer = train_tokenizer([c.original for c in cases], 400)
    torch.manual_seed(0)
    model = GPT2(GPT2Config(tokenizer.get_vocab_size(), 2, 2, 32, 128))
    for p in model.parameters(): torch.nn.init.normal_(p, std=0.2)
    save_model(model, tmp_path / 'm')
    judge = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'm').eval()
    plain = []
    for case in cases:
        for text in (case.original, case.altered):
            ids = torch.tensor([tokenizer.encode((PROMPT + text).strip()).ids])
            with torch.no_grad(): plain.append(judge(ids, labels=ids).loss.item())
    for scored in (model, judge):
        for size in (1, 4, 32):
            frame = score_cases(scored, tokenizer, cases, 'paper', batch_size=size).frame
            assert (
                np.abs(np.log(frame[['original', 'altered']].to_numpy().ravel()) - plain).max()
                < 1e-5
            )


@needs_data
def test_zlib_as_the_paper_describes_it():
    human = load_cases('brainbench-human', 'published')
    full = score_texts('zlib', lambda text: zlib_length((PROMPT + text).strip()), human)
    assert full.accuracy == 0.445 and (full.margin == 0).mean() == 0.17
    assert full.frame['original'].mean() == 789.86 and full.frame['original'].median() == 806
    assert np.mean([zlib_length(c.original) for c in human]) == 734.38
    # 2.13: Spearman of perplexity and zlib over the correct options
    if (Path(DATA) / 'published/gpt2/PPL_A_and_B.npy').exists():
        from scipy.stats import spearmanr
        right = np.load(Path(DATA) / 'published/gpt2/PPL_A_and_B.npy')[range(200), paper_labels(200)]
        assert round(spearmanr(right, full.frame['original'])[0], 4) == 0.1131


@pytest.mark.parametrize('protocol', ['default', 'paper'])
def test_scores_do_not_depend_on_the_batch(small, protocol):
    cases, tokenizer, model = small
    one = score_cases(model, tokenizer, cases, protocol, batch_size=1).frame
    for size in (None, 4, 32):
        frame = score_cases(model, tokenizer, cases, protocol, batch_size=size).frame
        for column in ('original', 'altered', 'original_nats', 'altered_bits_per_byte'):
            assert np.abs(np.log(frame[column] / one[column])).max() < 1e-5


def families():
    "List small models of several kinds, and whether they take a flat row."
    kw = dict(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
    )
    no_groups = {k: v for k, v in kw.items() if k != 'num_key_value_heads'}
    return {
        'llama': (transformers.LlamaConfig(**kw), True),
        'qwen2': (transformers.Qwen2Config(**kw), True),
        'neox': (transformers.GPTNeoXConfig(**no_groups), True),
        'sliding mistral': (transformers.MistralConfig(**kw, sliding_window=16), False),
        'bloom': (
            transformers.BloomConfig(
                vocab_size=400, hidden_size=32, n_layer=2, n_head=2, max_position_embeddings=256
            ),
            False,
        ),
    }


@pytest.mark.parametrize('family', list(families()))
def test_any_causal_model_of_transformers(small, family, capsys):
    cases, tokenizer, _ = small
    config, flat = families()[family]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for p in model.parameters(): torch.nn.init.normal_(p, std=0.2)
    frame = score_cases(
        model, tokenizer, cases[:4], 'paper', prompt='In short, this was found: '
    ).frame
    assert ('more slowly' in capsys.readouterr().out) == (not flat)
    for i, case in enumerate(cases[:4]):
        for version in ('original', 'altered'):
            ids = torch.tensor(
                [tokenizer.encode('In short, this was found: ' + getattr(case, version)).ids]
            )
            with torch.no_grad():
                assert abs(np.log(frame[version][i]) - model(ids, labels=ids).loss.item()) < 1e-5


@pytest.mark.parametrize('changes', [dict(rotary=True, rms_norm=True, qk_norm=True, relu2=True, bias=False),
                                     dict(bias=False)], ids=['modern', 'no biases'])
def test_our_other_architectures(small, changes):
    cases, tokenizer, _ = small
    torch.manual_seed(0)
    try: model = GPT2(GPT2Config(tokenizer.get_vocab_size(), 2, 2, 32, 256, **changes)).eval()
    except TypeError: pytest.skip('this GPT2Config has no such choices')
    for p in model.parameters(): torch.nn.init.normal_(p, std=0.2)
    frame = score_cases(model, tokenizer, cases, 'paper').frame
    rows = [tokenizer.encode((PROMPT + c.altered).strip()).ids for c in cases]
    for row, found in zip(rows, frame['altered']):
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(
                model(torch.tensor([row]))[0, :-1], torch.tensor(row[1:])
            ).item()
        assert abs(np.log(found) - loss) < 1e-5


def test_sixteen_bits_stay_close_even_when_all_logits_are_large(small):
    cases, tokenizer, model = small
    model = GPT2(GPT2Config(tokenizer.get_vocab_size(), 2, 2, 32, 256)).eval()
    # the same for all tokens: no probability changes
    with torch.no_grad(): model.wte.weight.add_(torch.linspace(-20, 20, 32))
    exact, short = (
        score_cases(model, tokenizer, cases, 'paper', dtype=dtype) for dtype in (None, 'bfloat16')
    )
    ln = lambda s: np.log(s.frame[['original', 'altered']].to_numpy())
    assert 0 < np.abs(ln(short) - ln(exact)).max() < 2e-3
    assert (exact.meta['dtype'], short.meta['dtype']) == ('float32', 'bfloat16')


def test_a_tokenizer_of_transformers_gives_the_same(small, tmp_path):
    from domain_llm.tokens.tokenizer import save_tokenizer
    cases, tokenizer, model = small
    save_tokenizer(tokenizer, tmp_path / 't')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 't')
    for protocol in ('default', 'paper'):
        a, b = (score_cases(model, t, cases, protocol).frame for t in (tokenizer, theirs))
        assert a.equals(b)


def test_a_case_longer_than_the_context_goes_through_windows_and_says_so(small, capsys):
    cases, tokenizer, _ = small
    model = random_model(tokenizer.get_vocab_size(), 64)
    long = cases[:2] + [
        Case('long', ' '.join(c.original for c in cases), ' '.join(c.altered for c in cases))
    ]
    scores = score_cases(model, tokenizer, long, 'paper', prompt='')
    said = '2 of 6 texts exceed the context of 64 tokens and are scored through a sliding window'
    assert said in capsys.readouterr().out
    ids = tokenizer.encode(long[2].original).ids
    assert scores.meta['windowed'] == 2 and scores.frame['original_tokens'][2] == len(ids) - 1
    losses = []
    for t in range(1, len(ids)):                                     # every token from at least half a context, by hand
        start = 0 if t < 64 else 32 * ((t - 32) // 32)
        with torch.no_grad():
            losses.append(-torch.log_softmax(model(torch.tensor([ids[start:t + 1]]))[0, -2], -1)[ids[t]].item())
    assert abs(np.log(scores.frame['original'][2]) - np.mean(losses)) < 1e-5


@pytest.mark.parametrize('stop', [0, 1, 7, 12])
def test_an_interrupted_scoring_resumes(small, stop, tmp_path, monkeypatch):
    cases, tokenizer, model = small
    whole = score_cases(model, tokenizer, cases, batch_size=1)
    calls = []
    def counted(model, pairs, batch_size=None, inner=scores_module.pair_losses):
        for i, found in enumerate(inner(model, pairs, batch_size)):
            if len(calls) == stop and not calls.count('stopped'):
                calls.append('stopped')
                raise KeyboardInterrupt
            calls.append(i)
            yield found
    monkeypatch.setattr(scores_module, 'pair_losses', counted)
    path = tmp_path / 's.parquet'
    if stop < 12:
        with pytest.raises(KeyboardInterrupt):
            score_cases(model, tokenizer, cases, path=path, batch_size=1)
        part = tmp_path / 's.parquet.part.jsonl'
        assert len(part.read_text().splitlines()) == 1 + stop and not path.exists()
        # a torn last line
        with open(part, 'a') as file: file.write('{"id": "cut off')
    again = score_cases(model, tokenizer, cases, path=path, batch_size=1)
    assert np.allclose(again.frame['altered'], whole.frame['altered'], rtol=1e-6) and list(
        tmp_path.iterdir()
    ) == [path]
    # no case was scored twice
    assert len([c for c in calls if c != 'stopped']) == 12
    assert (Scores.load(path).meta == json.loads(json.dumps(again.meta))
            and {'python', 'torch', 'tokenizers'} <= set(again.meta['versions']))


@pytest.mark.parametrize('change, word', [(dict(protocol='other'), 'protocol'), (dict(dtype='int4'), 'dtype')])
def test_settings_that_do_not_exist_are_refused(small, change, word):
    cases, tokenizer, model = small
    with pytest.raises(ValueError, match=word): score_cases(model, tokenizer, cases, **change)


def test_what_cannot_be_scored_is_refused_by_name(small):
    cases, tokenizer, model = small
    with pytest.raises(ValueError, match='do not belong together'):
        score_cases(random_model(300), tokenizer, cases)
    with pytest.raises(ValueError, match='case x: each version should have at least two tokens'):
        score_cases(model, tokenizer, [cases[0], Case('x', 'f', 'rose')], 'paper', prompt='')
    bad = random_model(tokenizer.get_vocab_size(), std=0.02)
    with torch.no_grad(): bad.ln_f.weight.fill_(float('inf'))
    with pytest.raises(ValueError, match=f'case {cases[0].id}: .* the model gives none'):
        score_cases(bad, tokenizer, cases)
    from tokenizers import Tokenizer, models
    nameless = Tokenizer(models.WordLevel({'a': 0, '[UNK]': 1}, '[UNK]'))
    with pytest.raises(ValueError, match='end-of-text'): score_cases(model, nameless, cases)


def test_a_result_is_read_back_whole_and_another_is_not_taken_for_it(small, tmp_path, monkeypatch):
    cases, tokenizer, model = small
    path = tmp_path / 's.parquet'
    scores = score_cases(model, tokenizer, cases, path=path, name='m')
    back = Scores.load(path)
    assert (
        back.frame.equals(scores.frame)
        and back.name == 'm'
        and back.meta == json.loads(json.dumps(scores.meta))
    )
    assert {
        'protocol',
        'prompt',
        'dtype',
        'device',
        'windowed',
        'model_sha256',
        'tokenizer_sha256',
        'cases_sha256',
        'versions',
    } <= set(back.meta)
    monkeypatch.setattr(scores_module, 'pair_losses', None)   # nothing is scored a second time
    assert score_cases(model, tokenizer, cases, path=path).frame.equals(scores.frame)
    other = random_model(tokenizer.get_vocab_size(), std=0.1)
    for change in (dict(cases=cases[1:]), dict(protocol='paper'), dict(prompt=''), dict(model=other),
                   dict(dtype='bfloat16')):
        with pytest.raises(ValueError, match='another file'):
            score_cases(
                **{**dict(model=model, tokenizer=tokenizer, cases=cases, path=path), **change}
            )
    import pandas as pd
    pd.DataFrame(dict(x=[1])).to_parquet(tmp_path / 'x.parquet')
    with pytest.raises(ValueError, match='how it was made'): Scores.load(tmp_path / 'x.parquet')


def test_the_progress_of_another_scoring_is_not_taken_up(small, tmp_path):
    cases, tokenizer, model = small
    path, part = tmp_path / 's.parquet', tmp_path / 's.parquet.part.jsonl'
    truth = score_cases(model, tokenizer, cases)
    part.write_text(
        json.dumps(dict(protocol='another'))
        + '\n'
        + json.dumps(dict(id=cases[0].id, section='', original=1.0, altered=2.0))
        + '\n'
    )
    assert score_cases(model, tokenizer, cases, path=path).frame.equals(truth.frame)


def test_a_tie_is_wrong_and_what_is_no_number_is_refused():
    import pandas as pd
    one = lambda a, b: Scores('m', pd.DataFrame([dict(id='7', section='', original=a, altered=b)]))
    assert (
        not one(1.0, 1.0).correct[0] and one(1.0, 2.0).correct[0] and not one(2.0, 1.0).correct[0]
    )
    for bad in (float('nan'), float('inf')):
        with pytest.raises(ValueError, match='case 7'): one(bad, 1.0)
        with pytest.raises(ValueError, match='case 7'): one(1.0, bad)
    with pytest.raises(ValueError, match='scored by score_cases'): one(1.0, 2.0).by('nats')


def test_one_broken_token_names_its_case_and_leaves_the_model_as_it_was(small):
    cases, tokenizer, _ = small
    model = random_model(tokenizer.get_vocab_size()).train()
    ids_of = lambda *texts: {i for t in texts for i in tokenizer.encode(' ' + t).ids}
    alone = lambda c: (
        ids_of(c.original)
        - ids_of(*(t for o in cases if o is not c for t in (o.original, o.altered)))
    )
    case = next(c for c in cases if alone(c))
    plain = token_losses
    assert model.training
    # the softmax of every position is lost
    with torch.no_grad(): model.wte.weight[min(alone(case))] = float('nan')
    with pytest.raises(ValueError, match=f'case {cases[0].id}: the original version should have a '
                                         'finite'):
        score_cases(model, tokenizer, cases)
    assert model.training and plain is token_losses


def test_the_default_protocol_by_one_plain_call(small):
    cases, tokenizer, model = small
    frame = score_cases(model, tokenizer, cases[:2], prompt='In short: ').frame
    for i, case in enumerate(cases[:2]):
        own = tokenizer.encode(' ' + case.original).ids
        ids = [tokenizer.token_to_id('<|endoftext|>')] + tokenizer.encode('In short:').ids + own
        with torch.no_grad(): logits = model(torch.tensor([ids]))[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction='none')[-len(own):]
        nats = losses.sum().item()
        assert (
            frame['original_tokens'][i] == len(own) and abs(frame['original_nats'][i] - nats) < 1e-3
        )
        assert abs(np.log(frame['original'][i]) - nats / len(own)) < 1e-5
        assert (
            abs(frame['original_bits_per_byte'][i] - nats / np.log(2) / len(case.original.encode()))
            < 1e-5
        )


def test_a_tokenizer_that_looks_like_another_models_is_said(small, capsys):
    cases, tokenizer, _ = small
    score_cases(random_model(tokenizer.get_vocab_size()), tokenizer, cases[:1])
    assert 'belong' not in capsys.readouterr().out
    model = GPT2(GPT2Config(tokenizer.get_vocab_size(), 1, 1, 8, 256, eos_token_id=7))
    score_cases(model, tokenizer, cases[:1])
    end = tokenizer.token_to_id('<|endoftext|>')
    said = f"end-of-text token is {end} and the model's is 7: do they belong together?"
    assert said in capsys.readouterr().out


class Forward:
    "Hide a model behind `log_probs`; what it says of a first token is no number."
    def __init__(self, model): self.model, self.cfg = model, model.cfg

    def log_probs(self, ids):
        with torch.no_grad():
            found = torch.log_softmax(self.model(ids), -1)[:, :-1].gather(2, ids[:, 1:, None])
        return torch.nn.functional.pad(found[..., 0], (1, 0), value=float('nan'))


def columns(scores): return scores.frame[['original', 'altered', 'original_nats', 'altered_bits_per_byte']].to_numpy()


@pytest.mark.parametrize('prompt', ['', PROMPT])
def test_a_counter_gets_the_scores_that_it_gives_itself(small, prompt):
    cases, tokenizer, _ = small
    end = tokenizer.token_to_id('<|endoftext|>')
    text = [i for c in cases for i in [end, *tokenizer.encode(c.original).ids]]
    counter = NGram(np.array(text), tokenizer.get_vocab_size(), 3)
    scores = score_cases(counter, tokenizer, cases, prompt=prompt)
    for version in ('original', 'altered'):
        for case, found in zip(cases, scores.frame[version]):
            ids, first, _ = encode_version(tokenizer, getattr(case, version), prompt=prompt)
            assert (
                abs(np.log(found) - np.log(perplexity(counter.nll(np.array(ids))[first - 1 :])))
                < 1e-12
            )
    assert (
        scores.meta['model'] == 'NGram'
        and scores.meta['device'] == 'cpu'
        and scores.meta['windowed'] == 0
    )
    rows = np.array(text[:60]).reshape(4, 15)
    assert np.array_equal(counter.log_probs(rows)[:, 1:], [-counter.nll(row) for row in rows])


@pytest.mark.parametrize('protocol', ['default', 'paper'])
@pytest.mark.parametrize('n_ctx', [256, 24])
def test_a_model_behind_log_probs_gets_its_own_scores(small, protocol, n_ctx, capsys):
    cases, tokenizer, _ = small
    model = random_model(tokenizer.get_vocab_size(), n_ctx)
    own, hidden = (
        score_cases(m, tokenizer, cases, protocol, 'In short: ') for m in (model, Forward(model))
    )
    assert np.abs(np.log(columns(own) / columns(hidden))).max() < 1e-5
    assert (hidden.meta['windowed'] > 0) == (
        n_ctx == 24
    ) and 'more slowly' not in capsys.readouterr().out


def test_a_model_that_reads_backward_may_share_what_versions_end_with(small, monkeypatch):
    cases, tokenizer, model = small
    from domain_llm.bench import branches
    read, inner = [], branches._walk
    monkeypatch.setattr(
        branches, '_walk', lambda m, ids, *rest: (read.append(len(ids)), inner(m, ids, *rest))[1]
    )
    shared = score_cases(model, tokenizer, cases, order='backward')
    n_shared = sum(read)
    whole = score_cases(model, tokenizer, cases, order='backward', share=False)
    # nothing was read as branches
    assert sum(read) == n_shared
    hidden = score_cases(Reversed(model), tokenizer, cases)
    for other in (whole, hidden):
        assert np.abs(np.log(columns(shared) / columns(other))).max() < 1e-5
    turned = [
        [
            [ids[0], *ids[:0:-1]]
            for ids, _, _ in (encode_version(tokenizer, t) for t in (c.original, c.altered))
        ]
        for c in cases
    ]
    begin = os.path.commonprefix([row for pair in turned for row in pair])
    once = sum(
        len(a) + len(b) - len(os.path.commonprefix([a, b])) - len(begin) for a, b in turned
    ) + len(begin)
    assert n_shared == once < sum(len(a) + len(b) for a, b in turned)
    # another question, other answers
    forward = score_cases(model, tokenizer, cases)
    assert np.abs(np.log(columns(shared) / columns(forward))).min() > 0
    assert shared.meta == {**forward.meta, 'order': 'backward'}
    # and one text in one call, by hand
    ids, first, _ = encode_version(tokenizer, cases[3].altered)
    row = torch.tensor([[ids[0], *ids[:0:-1]]])
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(model(row)[0, :-1], row[0, 1:], reduction='none')
    assert abs(np.log(shared.frame['altered'][3]) - losses[:len(ids) - first].mean().item()) < 1e-5


def test_a_model_of_transformers_may_read_backward_too(small):
    cases, tokenizer, _ = small
    config = transformers.LlamaConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for p in model.parameters(): torch.nn.init.normal_(p, std=0.2)
    one, two = (
        score_cases(model, tokenizer, cases[:4], order='backward', share=share)
        for share in (True, False)
    )
    assert np.abs(np.log(columns(one) / columns(two))).max() < 1e-5


@pytest.mark.parametrize('protocol', ['default', 'paper'])
def test_sharing_is_only_a_matter_of_speed(small, protocol, monkeypatch):
    cases, tokenizer, model = small
    shared = score_cases(model, tokenizer, cases, protocol)
    monkeypatch.setattr(scores_module, 'pair_losses', None)
    whole = score_cases(model, tokenizer, cases, protocol, share=False)
    assert (
        np.abs(np.log(columns(shared) / columns(whole))).max() < 1e-5 and shared.meta == whole.meta
    )


def test_what_no_order_allows_is_refused(small, tmp_path):
    cases, tokenizer, model = small
    for wrong, how in (('sideways', dict(order='sideways')), ('end of text', dict(order='backward', protocol='paper'))):
        with pytest.raises(ValueError, match=wrong): score_cases(model, tokenizer, cases, **how)
    with pytest.raises(ValueError, match='an order of its own'):
        score_cases(Reversed(model), tokenizer, cases, order='backward')
    with pytest.raises(ValueError, match='but Reversed has none: leave path out'):
        score_cases(Reversed(model), tokenizer, cases, path=tmp_path / 's.parquet')
    assert not list(tmp_path.iterdir())


# what a result says about its time, its plan and its sentences

def test_sentences_of_one_abstract_are_no_separate_cases():
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(60) < .6, 4)
    frame = pd.DataFrame(
        dict(
            id=[f'{i // 4}.{i % 4 + 1}' for i in range(240)],
            section='',
            original=1.0,
            altered=np.where(right, 2.0, 0.5),
        )
    )
    sentences = Scores('m', frame)
    whole = Scores('m', frame[::4].assign(id=[str(i) for i in range(60)]))
    # four copies of an answer are one answer
    assert sentences.line.error and whole.line.error is None and sentences.line.df == 59
    assert abs(np.ptp(sentences.interval) / np.ptp(whole.interval) - 1) < .1
    assert 'abstracts random' in str(sentences.line)
    named = Scores(
        'm', frame.assign(id=[f'x{i}' for i in range(240)], abstract=np.arange(240) // 4)
    )
    assert named.line == sentences.line


def test_the_margin_of_logarithms_forgets_the_scale():
    frame = pd.DataFrame(dict(id=['a', 'b'], section='', original=[20., 40], altered=[22., 36]))
    halved = Scores(
        'm',
        frame.assign(original=frame.original / 2, altered=frame.altered / 2),
        dict(protocol='paper'),
    )
    assert np.allclose(Scores('m', frame, dict(protocol='paper')).log_margin, np.log([1.1, .9]))
    assert np.allclose(halved.log_margin, np.log([1.1, 0.9])) and not np.allclose(
        halved.margin, [2, -4]
    )
    # what is no perplexity is left as it is
    for meta in dict(protocol='function of the text'), dict(protocol='default', measure='nats'):
        assert np.allclose(Scores('m', frame, meta).log_margin, [2, -4])


def test_a_scoring_keeps_its_time_and_its_plan(small, tmp_path, monkeypatch):
    cases, tokenizer, model = small
    from datetime import datetime
    from domain_llm.bench.looks import declare_plan, declared_beforehand
    plan = declare_plan(tmp_path, ['m', 'experts'], .05)
    with_plan, without = (
        score_texts('m', len, cases, plan=p) for p in (tmp_path / 'plan.json', None)
    )
    assert datetime.fromisoformat(without.meta['scored']) and 'plan_sha256' not in without.meta
    assert declared_beforehand(plan, [with_plan.meta]) and not declared_beforehand(
        plan, [without.meta]
    )
    # a resumed scoring keeps the time at which it was begun, and a plan written in between comes too late
    path, asked = tmp_path / 's.parquet', []
    def stops(model, pairs, batch_size=None, inner=scores_module.pair_losses):
        for found in inner(model, pairs, batch_size):
            asked.append(found)
            if len(asked) == 2: raise KeyboardInterrupt
            yield found
    with monkeypatch.context() as m:
        m.setattr(scores_module, 'pair_losses', stops)
        with pytest.raises(KeyboardInterrupt):
            score_cases(model, tokenizer, cases, path=path, batch_size=1)
    part = tmp_path / 's.parquet.part.jsonl'
    begun = json.loads(part.read_text().splitlines()[0])
    old = part.read_text().replace(begun['scored'], '2020-01-01T00:00:00+00:00')
    part.write_text(old)
    again = score_cases(
        model, tokenizer, cases, path=path, batch_size=1, plan=tmp_path / 'plan.json'
    )
    assert again.meta['scored'].startswith('2020') and 'plan_sha256' not in again.meta
    assert not declared_beforehand(plan, [again.meta])
    # and a finished one is not redone
    assert score_cases(model, tokenizer, cases, path=path, batch_size=1).meta == again.meta
