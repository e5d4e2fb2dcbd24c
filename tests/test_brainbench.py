"""BrainBench against the published files, a local server, and a plain loop with transformers."""
import json, os, threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from domain_llm import brainbench as bb
from domain_llm.gpt2 import GPT2, GPT2Config
from domain_llm.synthetic import Case, SyntheticScience
from domain_llm.tokenizer import train_tokenizer

DATA = os.environ.get('DOMAIN_LLM_DATA')
needs_data = pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')


pytestmark = pytest.mark.usefixtures('one_thread')


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_): pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    "A server on this machine with one file, and a cache of its own."
    folder = tmp_path / 'served'
    folder.mkdir()
    (folder / 'cases.csv').write_text('original_abstract,incorrect_abstract\nit rose,it fell\n')
    server = HTTPServer(('127.0.0.1', 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv('DOMAIN_LLM_DATA', raising=False)
    monkeypatch.setattr('pooch.os_cache', lambda name: tmp_path / 'cache')
    import hashlib
    digest = hashlib.sha256((folder / 'cases.csv').read_bytes()).hexdigest()
    monkeypatch.setitem(bb.FILES, 'cases.csv', ('brainbench', f'http://127.0.0.1:{server.server_port}', digest))
    yield server, folder, tmp_path
    server.shutdown()


def test_a_file_is_downloaded_once_and_checked(mirror):
    server, folder, tmp_path = mirror
    path = bb.named_file('cases.csv')
    assert path.read_text().endswith('it rose,it fell\n') and tmp_path / 'cache' in path.parents
    server.shutdown()
    assert bb.named_file('cases.csv') == path                       # the second time without the server


def test_a_file_that_was_altered_on_the_way_is_refused(mirror):
    _, folder, tmp_path = mirror
    (folder / 'cases.csv').write_text('original_abstract,incorrect_abstract\nit fell,it rose\n')
    with pytest.raises(ValueError, match='not the published file'): bb.named_file('cases.csv')
    assert not list((tmp_path / 'cache').glob('cases.csv'))


def test_a_missing_server_is_a_sentence(mirror):
    _, folder, _ = mirror
    (folder / 'cases.csv').unlink()
    with pytest.raises(FileNotFoundError, match='set DOMAIN_LLM_DATA'): bb.named_file('cases.csv')


@needs_data
def test_the_published_hashes_are_those_of_the_published_files():
    from domain_llm.tokens import file_sha256
    for name, (folder, _, sha256) in bb.FILES.items(): assert file_sha256(Path(DATA) / folder / name) == sha256


@needs_data
def test_the_published_sets(capsys):
    human, gpt4 = bb.load_cases('brainbench-human'), bb.load_cases('brainbench-gpt4')
    assert (len(human), len(gpt4)) == (200, 100) and human[0].id == '1' and human[61].section
    from collections import Counter
    assert sorted(Counter(c.section for c in human).values()) == [24, 25, 25, 51, 75]
    said = capsys.readouterr().out                                  # T3: damaged in the files themselves
    assert 'case 63' in said and 'case 25, 52, 59, 67' in said
    assert bb.paper_labels(200).sum() == 98 and bb.paper_labels(100).sum() == 47
    assert bb.paper_labels(200)[:10].tolist() == [0, 1, 1, 1, 0, 0, 0, 1, 1, 1]


@needs_data
@pytest.mark.parametrize('model', sorted(p.name for p in (Path(DATA or '.') / 'published').glob('*') if (p / 'labels.npy').exists()) if DATA else [])
def test_the_papers_labels_are_the_stored_ones(model):
    assert (np.load(Path(DATA) / 'published' / model / 'labels.npy') == bb.paper_labels(200)).all()


def test_scores_equal_a_plain_loop_with_transformers(tmp_path):
    cases = SyntheticScience(0).cases()[:5]
    tokenizer = train_tokenizer([c.original for c in cases], 400)
    torch.manual_seed(0)
    model = GPT2(GPT2Config(tokenizer.get_vocab_size(), 2, 2, 32, 128))
    for p in model.parameters(): torch.nn.init.normal_(p, std=0.2)
    model.save_pretrained(tmp_path / 'm')
    judge = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'm').eval()
    plain = []
    for case in cases:
        for text in (case.original, case.altered):
            ids = torch.tensor([tokenizer.encode((bb.PROMPT + text).strip()).ids])
            with torch.no_grad(): plain.append(judge(ids, labels=ids).loss.item())
    for scored in (model, judge):
        for size in (1, 4, 32):
            frame = bb.score_cases(scored, tokenizer, cases, 'paper', batch_size=size).frame
            assert np.abs(np.log(frame[['original', 'altered']].to_numpy().ravel()) - plain).max() < 1e-5


def test_untrained_models_guess():
    cases = SyntheticScience(0).cases()
    tokenizer = train_tokenizer([c.original for c in cases], 600)
    right = []
    for seed in range(5):
        torch.manual_seed(seed)
        right.append(bb.score_cases(GPT2(GPT2Config.preset('toy', tokenizer.get_vocab_size())), tokenizer, cases, prompt='').accuracy)
    assert abs(np.mean(right) - 0.5) < 3 * 0.5 / (5 * len(cases)) ** 0.5


MENDED = {  # T3, set and case: what each version has to hold after mending
    ('human', 62): ('decreased at the PP-DG and SC-CA1 synapses compared with NREM, while they increased', 'increased at the PP-DG and SC-CA1 synapses compared with NREM, while they decreased'),
    ('gpt4', 24): ('In contrast, we did not find any evidence', 'Moreover, we found an evidence'),
    ('gpt4', 51): ('consistent with previous studies of the base of the cochlea.', 'are uniform across the apex, contradicting previous studies of the base of the cochlea.'),
    ('gpt4', 58): ('static torque were inferior to dynamic stimuli in humans, while in monkeys the opposite was true.', 'dynamic torque were inferior to static stimuli in humans, while in monkeys the opposite was true.'),
    ('gpt4', 66): ('Cav2.2, but not Cav2.3, currents', 'Cav2.3, but not Cav2.2, currents')}


@needs_data
def test_both_readings_of_the_marks():
    import pandas as pd
    for maker in ('human', 'gpt4'):
        table = pd.read_csv(Path(DATA) / 'brainbench' / bb.CASE_SETS[f'brainbench-{maker}'], keep_default_na=False)
        published, mended = (bb.load_cases(f'brainbench-{maker}', reading) for reading in ('published', 'mended'))
        for i, row in table.iterrows():
            columns = row['original_abstract'].strip(), row['incorrect_abstract'].strip()
            assert tuple(t.strip() for t in bb.read_marked(row['combined_abstract'], 'published')) == columns == (published[i].original, published[i].altered)
            if (maker, i) not in MENDED: assert mended[i] == published[i]
            else: assert mended[i] != published[i] and all(want in got for want, got in zip(MENDED[maker, i], (mended[i].original, mended[i].altered)))


@needs_data
def test_marked_texts_alone_and_plain_columns_give_the_same_cases(tmp_path):
    import pandas as pd
    table = pd.read_csv(Path(DATA) / 'brainbench' / bb.CASE_SETS['brainbench-human'], keep_default_na=False)
    table[['combined_abstract', 'journal_section']].to_csv(tmp_path / 'marked.csv', index=False)
    table.rename(columns={'original_abstract': 'original', 'incorrect_abstract': 'altered'})[['original', 'altered', 'journal_section']].to_csv(tmp_path / 'plain.csv', index=False)
    assert bb.load_cases(tmp_path / 'marked.csv') == bb.load_cases('brainbench-human')
    assert bb.load_cases(tmp_path / 'plain.csv') == bb.load_cases('brainbench-human', 'published') == bb.load_cases(tmp_path / 'plain.csv', 'published')


@needs_data
def test_isolated_sentences_and_swapped_context():
    human = bb.load_cases('brainbench-human', 'published')
    stored = json.loads((Path(DATA) / 'brainbench' / 'swap_human_abstracts.json').read_text(encoding='utf-8'))
    alone = bb.isolated_sentences(human)
    assert [(c.original, c.altered) for c in alone] == [p for i, c in enumerate(human) for p in zip(*(stored[c.section][str(i)][k] for k in ('original', 'incorrect')))]
    assert alone == bb.isolated_sentences('brainbench-human', 'published') and len(alone) == 488
    assert len(bb.isolated_sentences('brainbench-gpt4', 'published')) == 239
    for model in (Path(DATA) / 'published').glob('*/abstract_mask_iso.npy'):                     # which abstract each sentence is of
        assert np.load(model).tolist() == [int(c.id.split('.')[0]) - 1 for c in alone]
        assert (np.load(model.with_name('labels_iso.npy')) == bb.paper_labels(488)).all()
    for seed, total in ((42, 105), (1234, 102)):
        swapped, labels = bb.swapped_context(human, seed)
        assert labels.sum() == total and swapped == bb.swapped_context(human, seed)[0]
        for case, old in zip(swapped, human):
            own, new = (bb.split_sentences(c.original) for c in (old, case))
            kept = [s for s in own if s not in stored[old.section][str(int(old.id) - 1)]['original']]
            assert all(s in case.original and s in case.altered for s in kept) and case.original != case.altered


@needs_data
def test_subsets():
    both, from_paper = bb.load_cases('brainbench'), {'Behavioral/Cognitive': (75, 38), 'Systems/Circuits': (51, 25), 'Neurobiology of Disease': (25, 12), 'Cellular/Molecular': (25, 12), 'Development/Plasticity/Repair': (24, 13)}
    assert len(both) == 300 and len(bb.subset(both, maker='human')) == 200
    for section, (human, gpt4) in from_paper.items():
        assert (len(bb.subset(both, section, 'human')), len(bb.subset(both, section, 'gpt4'))) == (human, gpt4)
    with pytest.raises(ValueError, match='Systems/Circuits'): bb.subset(both, 'Astronomy')


@needs_data
def test_zlib_as_the_paper_describes_it():
    human = bb.load_cases('brainbench-human', 'published')
    full = bb.score_texts('zlib', lambda text: bb.zlib_length((bb.PROMPT + text).strip()), human)
    assert full.accuracy == 0.445 and (full.margin == 0).mean() == 0.17
    assert full.frame['original'].mean() == 789.86 and full.frame['original'].median() == 806
    assert np.mean([bb.zlib_length(c.original) for c in human]) == 734.38
    if (Path(DATA) / 'published/gpt2/PPL_A_and_B.npy').exists():                                  # 2.13: Spearman of perplexity and zlib over the correct options
        from scipy.stats import spearmanr
        right = np.load(Path(DATA) / 'published/gpt2/PPL_A_and_B.npy')[range(200), bb.paper_labels(200)]
        assert round(spearmanr(right, full.frame['original'])[0], 4) == 0.1131


def random_model(vocab_size, n_ctx=256, std=0.2):
    torch.manual_seed(0)
    model = GPT2(GPT2Config(vocab_size, 2, 2, 32, n_ctx)).eval()
    for p in model.parameters(): torch.nn.init.normal_(p, std=std)
    return model


@pytest.fixture(scope='module')
def small():
    cases = SyntheticScience(0).cases()[:12]
    tokenizer = train_tokenizer([t for c in cases for t in (c.original, c.altered)], 400)
    return cases, tokenizer, random_model(tokenizer.get_vocab_size())


@pytest.mark.parametrize('protocol', ['default', 'paper'])
def test_scores_do_not_depend_on_the_batch(small, protocol):
    cases, tokenizer, model = small
    one = bb.score_cases(model, tokenizer, cases, protocol, batch_size=1).frame
    for size in (None, 4, 32):
        frame = bb.score_cases(model, tokenizer, cases, protocol, batch_size=size).frame
        for column in ('original', 'altered', 'original_nats', 'altered_bits_per_byte'): assert np.abs(np.log(frame[column] / one[column])).max() < 1e-5


def families():
    "List small models of several kinds, and whether they take a flat row."
    kw = dict(vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, intermediate_size=64, max_position_embeddings=256)
    return {'llama': (transformers.LlamaConfig(**kw), True), 'neox': (transformers.GPTNeoXConfig(**{k: v for k, v in kw.items() if k != 'num_key_value_heads'}), True), 'qwen2': (transformers.Qwen2Config(**kw), True),
            'sliding mistral': (transformers.MistralConfig(**kw, sliding_window=16), False),
            'bloom': (transformers.BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=2, max_position_embeddings=256), False)}


@pytest.mark.parametrize('family', list(families()))
def test_any_causal_model_of_transformers(small, family, capsys):
    cases, tokenizer, _ = small
    config, flat = families()[family]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for p in model.parameters(): torch.nn.init.normal_(p, std=0.2)
    frame = bb.score_cases(model, tokenizer, cases[:4], 'paper', prompt='In short, this was found: ').frame
    assert ('more slowly' in capsys.readouterr().out) == (not flat)
    for i, case in enumerate(cases[:4]):
        for version in ('original', 'altered'):
            ids = torch.tensor([tokenizer.encode('In short, this was found: ' + getattr(case, version)).ids])
            with torch.no_grad(): assert abs(np.log(frame[version][i]) - model(ids, labels=ids).loss.item()) < 1e-5


@pytest.mark.parametrize('changes', [dict(rotary=True, rms_norm=True, qk_norm=True, relu2=True, bias=False), dict(bias=False)], ids=['modern', 'no biases'])
def test_our_other_architectures(small, changes):
    cases, tokenizer, _ = small
    torch.manual_seed(0)
    try: model = GPT2(GPT2Config(tokenizer.get_vocab_size(), 2, 2, 32, 256, **changes)).eval()
    except TypeError: pytest.skip('this GPT2Config has no such choices')
    for p in model.parameters(): torch.nn.init.normal_(p, std=0.2)
    frame = bb.score_cases(model, tokenizer, cases, 'paper').frame
    rows = [tokenizer.encode((bb.PROMPT + c.altered).strip()).ids for c in cases]
    for row, found in zip(rows, frame['altered']):
        with torch.no_grad(): loss = torch.nn.functional.cross_entropy(model(torch.tensor([row]))[0, :-1], torch.tensor(row[1:])).item()
        assert abs(np.log(found) - loss) < 1e-5


def test_sixteen_bits_stay_close_even_when_all_logits_are_large(small):
    cases, tokenizer, model = small
    model = GPT2(GPT2Config(tokenizer.get_vocab_size(), 2, 2, 32, 256)).eval()
    with torch.no_grad(): model.wte.weight.add_(torch.linspace(-20, 20, 32))                        # the same for all tokens: no probability changes
    exact, short = (bb.score_cases(model, tokenizer, cases, 'paper', dtype=dtype) for dtype in (None, 'bfloat16'))
    ln = lambda s: np.log(s.frame[['original', 'altered']].to_numpy())
    assert 0 < np.abs(ln(short) - ln(exact)).max() < 2e-3
    assert (exact.meta['dtype'], short.meta['dtype']) == ('float32', 'bfloat16')


def test_a_tokenizer_of_transformers_gives_the_same(small, tmp_path):
    from domain_llm.tokenizer import save_tokenizer
    cases, tokenizer, model = small
    save_tokenizer(tokenizer, tmp_path / 't')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 't')
    for protocol in ('default', 'paper'):
        a, b = (bb.score_cases(model, t, cases, protocol).frame for t in (tokenizer, theirs))
        assert a.equals(b)


def test_a_case_longer_than_the_context_goes_through_windows_and_says_so(small, capsys):
    cases, tokenizer, _ = small
    model = random_model(tokenizer.get_vocab_size(), 64)
    long = cases[:2] + [Case('long', ' '.join(c.original for c in cases), ' '.join(c.altered for c in cases))]
    scores = bb.score_cases(model, tokenizer, long, 'paper', prompt='')
    assert '2 of 6 texts exceed the context of 64 tokens and are scored through a sliding window' in capsys.readouterr().out
    ids = tokenizer.encode(long[2].original).ids
    assert scores.meta['windowed'] == 2 and scores.frame['original_tokens'][2] == len(ids) - 1
    losses = []
    for t in range(1, len(ids)):                                     # every token from at least half a context, by hand
        start = 0 if t < 64 else 32 * ((t - 32) // 32)
        with torch.no_grad(): losses.append(-torch.log_softmax(model(torch.tensor([ids[start:t + 1]]))[0, -2], -1)[ids[t]].item())
    assert abs(np.log(scores.frame['original'][2]) - np.mean(losses)) < 1e-5


@pytest.mark.parametrize('stop', [0, 1, 7, 12])
def test_an_interrupted_scoring_resumes(small, stop, tmp_path, monkeypatch):
    cases, tokenizer, model = small
    whole = bb.score_cases(model, tokenizer, cases, batch_size=1)
    calls = []
    def counted(model, pairs, batch_size=None, inner=bb.pair_losses):
        for i, found in enumerate(inner(model, pairs, batch_size)):
            if len(calls) == stop and not calls.count('stopped'):
                calls.append('stopped')
                raise KeyboardInterrupt
            calls.append(i)
            yield found
    monkeypatch.setattr(bb, 'pair_losses', counted)
    path = tmp_path / 's.parquet'
    if stop < 12:
        with pytest.raises(KeyboardInterrupt): bb.score_cases(model, tokenizer, cases, path=path, batch_size=1)
        part = tmp_path / 's.parquet.part.jsonl'
        assert len(part.read_text().splitlines()) == 1 + stop and not path.exists()
        with open(part, 'a') as file: file.write('{"id": "cut off')                                # a torn last line
    again = bb.score_cases(model, tokenizer, cases, path=path, batch_size=1)
    assert np.allclose(again.frame['altered'], whole.frame['altered'], rtol=1e-6) and list(tmp_path.iterdir()) == [path]
    assert len([c for c in calls if c != 'stopped']) == 12                                          # no case was scored twice
    assert bb.Scores.load(path).meta == json.loads(json.dumps(again.meta)) and {'python', 'torch', 'tokenizers'} <= set(again.meta['versions'])


@pytest.mark.parametrize('change, word', [(dict(protocol='other'), 'protocol'), (dict(dtype='int4'), 'dtype')])
def test_settings_that_do_not_exist_are_refused(small, change, word):
    cases, tokenizer, model = small
    with pytest.raises(ValueError, match=word): bb.score_cases(model, tokenizer, cases, **change)


def test_what_cannot_be_scored_is_refused_by_name(small):
    cases, tokenizer, model = small
    with pytest.raises(ValueError, match='do not belong together'): bb.score_cases(random_model(300), tokenizer, cases)
    with pytest.raises(ValueError, match='case x: each version should have at least two tokens'): bb.score_cases(model, tokenizer, [cases[0], Case('x', 'f', 'rose')], 'paper', prompt='')
    bad = random_model(tokenizer.get_vocab_size(), std=0.02)
    with torch.no_grad(): bad.ln_f.weight.fill_(float('inf'))
    with pytest.raises(ValueError, match=f'case {cases[0].id}: .* the model gives none'): bb.score_cases(bad, tokenizer, cases)
    from tokenizers import Tokenizer, models
    nameless = Tokenizer(models.WordLevel({'a': 0, '[UNK]': 1}, '[UNK]'))
    with pytest.raises(ValueError, match='end-of-text'): bb.score_cases(model, nameless, cases)


@pytest.mark.parametrize('text, word', [('original,altered\nrose,\n', 'case 1: both versions should hold text'), ('original,altered\nit rose,it fell\nrose,rose\n', 'case 2: .*the same'),
                                        ('doi,original_abstract\n1,rose\n', 'columns'), ('marked\n"it [[rose]]"\n', 'case 1: .*comma'), ('original,altered\nit rose,it [[fell\n', 'case 1: .*plain text'),
                                        ('original,altered\n"rose,fell\n', 'cannot be read'), ('original,altered,marked\nrose,sank,"[[rose,fell]]"\n', 'case 1: .*differ')])
def test_bad_files_are_one_sentence(tmp_path, text, word):
    (tmp_path / 'c.csv').write_text(text)
    with pytest.raises(ValueError, match=word) as caught: bb.load_cases(tmp_path / 'c.csv')
    assert '\n' not in str(caught.value).strip()


def test_a_file_in_another_encoding_is_refused(tmp_path):
    (tmp_path / 'c.csv').write_bytes('original,altered\nnaïve rose,naïve fell\n'.encode('latin-1'))
    with pytest.raises(ValueError, match='UTF-8'): bb.load_cases(tmp_path / 'c.csv')


def test_the_controls_pass_on_a_sound_benchmark_and_notice_a_broken_score(monkeypatch):
    science = SyntheticScience(0)
    cases = science.cases()
    tokenizer = train_tokenizer([c.original for c in cases], 600)
    table = bb.controls(cases, tokenizer, corpus=science.papers()[:1000]).set_index('control')
    assert table.ok[['untrained, mean over seeds', 'last untrained, labels exchanged', 'oracle']].all()
    inner = bb.pair_losses                                                                          # a leak: the original is scored a little too well
    monkeypatch.setattr(bb, 'pair_losses', lambda *a: ((a_ - 0.05, b_) for a_, b_ in inner(*a)))
    broken = bb.controls(cases, tokenizer).set_index('control')
    assert not broken.ok['untrained, mean over seeds'] and not broken.ok['last untrained, labels exchanged']


def test_a_benchmark_with_a_tell_is_reported():
    texts = [f'We asked about topic {i}. We waited for a week. It [[rose,did not rise at all]] in number {i}.' for i in range(30)]
    table = bb.check_cases(bb.make_cases(texts), corpus=['nothing of the kind ' * 5]).set_index('check')
    assert not table.ok['length balance'] and not table.ok['guesser: shorter text'] and table.ok['not in the corpus'] and table.ok['edit outside the opening sentence']
    fair = [f'We asked about topic {i}. We waited for a week. It [[{"rose,fell" if i % 2 else "fell,rose"}]] in number {i}.' for i in range(30)]
    table = bb.check_cases(bb.make_cases(fair), corpus=[bb.make_cases(fair)[4].original]).set_index('check')
    assert table.ok['length balance'] and not table.ok['not in the corpus'] and 'case' in table.found['not in the corpus']
