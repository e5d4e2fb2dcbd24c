"""BrainBench against the published files, a local server, and a plain loop with transformers."""
import json, os, threading
from functools import cache, partial
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
science = cache(SyntheticScience)
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
    from domain_llm.ground.files import file_sha256
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
@pytest.mark.parametrize('model', sorted(p.name for p in (Path(DATA or '.') / 'published').glob('*')
                                         if (p / 'labels.npy').exists()) if DATA else [])
def test_the_papers_labels_are_the_stored_ones(model):
    assert (np.load(Path(DATA) / 'published' / model / 'labels.npy') == bb.paper_labels(200)).all()


def test_scores_equal_a_plain_loop_with_transformers(tmp_path):
    cases = science(0).cases()[:5]
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
    cases = science(0).cases()
    tokenizer = train_tokenizer([c.original for c in cases], 600)
    right = []
    for seed in range(5):
        torch.manual_seed(seed)
        right.append(bb.score_cases(GPT2(GPT2Config.preset('toy', tokenizer.get_vocab_size())), tokenizer, cases,
                                    prompt='').accuracy)
    assert abs(np.mean(right) - 0.5) < 3 * 0.5 / (5 * len(cases)) ** 0.5


MENDED = {  # T3, set and case: what each version has to hold after mending
    ('human', 62): ('decreased at the PP-DG and SC-CA1 synapses compared with NREM, while they increased',
                    'increased at the PP-DG and SC-CA1 synapses compared with NREM, while they decreased'),
    ('gpt4', 24): ('In contrast, we did not find any evidence', 'Moreover, we found an evidence'),
    ('gpt4', 51): ('consistent with previous studies of the base of the cochlea.',
                   'are uniform across the apex, contradicting previous studies of the base of the cochlea.'),
    ('gpt4', 58): ('static torque were inferior to dynamic stimuli in humans, while in monkeys the opposite was true.',
                   'dynamic torque were inferior to static stimuli in humans, while in monkeys the opposite was true.'),
    ('gpt4', 66): ('Cav2.2, but not Cav2.3, currents', 'Cav2.3, but not Cav2.2, currents')}


@needs_data
def test_both_readings_of_the_marks():
    import pandas as pd
    for maker in ('human', 'gpt4'):
        table = pd.read_csv(Path(DATA) / 'brainbench' / bb.CASE_SETS[f'brainbench-{maker}'], keep_default_na=False)
        published, mended = (bb.load_cases(f'brainbench-{maker}', reading) for reading in ('published', 'mended'))
        for i, row in table.iterrows():
            columns = row['original_abstract'].strip(), row['incorrect_abstract'].strip()
            marked = tuple(t.strip() for t in bb.read_marked(row['combined_abstract'], 'published'))
            assert marked == columns == (published[i].original, published[i].altered)
            if (maker, i) not in MENDED: assert mended[i] == published[i]
            else:
                versions = mended[i].original, mended[i].altered
                assert mended[i] != published[i]
                assert all(want in got for want, got in zip(MENDED[maker, i], versions))


@needs_data
def test_marked_texts_alone_and_plain_columns_give_the_same_cases(tmp_path):
    import pandas as pd
    table = pd.read_csv(Path(DATA) / 'brainbench' / bb.CASE_SETS['brainbench-human'], keep_default_na=False)
    table[['combined_abstract', 'journal_section']].to_csv(tmp_path / 'marked.csv', index=False)
    plain = table.rename(columns={'original_abstract': 'original', 'incorrect_abstract': 'altered'})
    plain[['original', 'altered', 'journal_section']].to_csv(tmp_path / 'plain.csv', index=False)
    assert bb.load_cases(tmp_path / 'marked.csv') == bb.load_cases('brainbench-human')
    assert (bb.load_cases(tmp_path / 'plain.csv') == bb.load_cases('brainbench-human', 'published')
            == bb.load_cases(tmp_path / 'plain.csv', 'published'))


@needs_data
def test_isolated_sentences_and_swapped_context():
    human = bb.load_cases('brainbench-human', 'published')
    stored = json.loads((Path(DATA) / 'brainbench' / 'swap_human_abstracts.json').read_text(encoding='utf-8'))
    alone = bb.isolated_sentences(human)
    theirs = [stored[c.section][str(i)] for i, c in enumerate(human)]
    assert [(c.original, c.altered) for c in alone] == [p for t in theirs for p in zip(t['original'], t['incorrect'])]
    assert alone == bb.isolated_sentences('brainbench-human', 'published') and len(alone) == 488
    assert len(bb.isolated_sentences('brainbench-gpt4', 'published')) == 239
    for model in (Path(DATA) / 'published').glob('*/abstract_mask_iso.npy'):   # which abstract each sentence is of
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
    both, from_paper = bb.load_cases('brainbench'), {
        'Behavioral/Cognitive': (75, 38), 'Systems/Circuits': (51, 25), 'Neurobiology of Disease': (25, 12),
        'Cellular/Molecular': (25, 12), 'Development/Plasticity/Repair': (24, 13)}
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
    # 2.13: Spearman of perplexity and zlib over the correct options
    if (Path(DATA) / 'published/gpt2/PPL_A_and_B.npy').exists():
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
    cases = science(0).cases()[:12]
    tokenizer = train_tokenizer([t for c in cases for t in (c.original, c.altered)], 400)
    return cases, tokenizer, random_model(tokenizer.get_vocab_size())


@pytest.mark.parametrize('protocol', ['default', 'paper'])
def test_scores_do_not_depend_on_the_batch(small, protocol):
    cases, tokenizer, model = small
    one = bb.score_cases(model, tokenizer, cases, protocol, batch_size=1).frame
    for size in (None, 4, 32):
        frame = bb.score_cases(model, tokenizer, cases, protocol, batch_size=size).frame
        for column in ('original', 'altered', 'original_nats', 'altered_bits_per_byte'):
            assert np.abs(np.log(frame[column] / one[column])).max() < 1e-5


def families():
    "List small models of several kinds, and whether they take a flat row."
    kw = dict(vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
              intermediate_size=64, max_position_embeddings=256)
    no_groups = {k: v for k, v in kw.items() if k != 'num_key_value_heads'}
    return {'llama': (transformers.LlamaConfig(**kw), True), 'qwen2': (transformers.Qwen2Config(**kw), True),
            'neox': (transformers.GPTNeoXConfig(**no_groups), True),
            'sliding mistral': (transformers.MistralConfig(**kw, sliding_window=16), False),
            'bloom': (transformers.BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=2,
                                               max_position_embeddings=256), False)}


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


@pytest.mark.parametrize('changes', [dict(rotary=True, rms_norm=True, qk_norm=True, relu2=True, bias=False),
                                     dict(bias=False)], ids=['modern', 'no biases'])
def test_our_other_architectures(small, changes):
    cases, tokenizer, _ = small
    torch.manual_seed(0)
    try: model = GPT2(GPT2Config(tokenizer.get_vocab_size(), 2, 2, 32, 256, **changes)).eval()
    except TypeError: pytest.skip('this GPT2Config has no such choices')
    for p in model.parameters(): torch.nn.init.normal_(p, std=0.2)
    frame = bb.score_cases(model, tokenizer, cases, 'paper').frame
    rows = [tokenizer.encode((bb.PROMPT + c.altered).strip()).ids for c in cases]
    for row, found in zip(rows, frame['altered']):
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(model(torch.tensor([row]))[0, :-1], torch.tensor(row[1:])).item()
        assert abs(np.log(found) - loss) < 1e-5


def test_sixteen_bits_stay_close_even_when_all_logits_are_large(small):
    cases, tokenizer, model = small
    model = GPT2(GPT2Config(tokenizer.get_vocab_size(), 2, 2, 32, 256)).eval()
    # the same for all tokens: no probability changes
    with torch.no_grad(): model.wte.weight.add_(torch.linspace(-20, 20, 32))
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
    # no case was scored twice
    assert len([c for c in calls if c != 'stopped']) == 12
    assert (bb.Scores.load(path).meta == json.loads(json.dumps(again.meta))
            and {'python', 'torch', 'tokenizers'} <= set(again.meta['versions']))


@pytest.mark.parametrize('change, word', [(dict(protocol='other'), 'protocol'), (dict(dtype='int4'), 'dtype')])
def test_settings_that_do_not_exist_are_refused(small, change, word):
    cases, tokenizer, model = small
    with pytest.raises(ValueError, match=word): bb.score_cases(model, tokenizer, cases, **change)


def test_what_cannot_be_scored_is_refused_by_name(small):
    cases, tokenizer, model = small
    with pytest.raises(ValueError, match='do not belong together'): bb.score_cases(random_model(300), tokenizer, cases)
    with pytest.raises(ValueError, match='case x: each version should have at least two tokens'):
        bb.score_cases(model, tokenizer, [cases[0], Case('x', 'f', 'rose')], 'paper', prompt='')
    bad = random_model(tokenizer.get_vocab_size(), std=0.02)
    with torch.no_grad(): bad.ln_f.weight.fill_(float('inf'))
    with pytest.raises(ValueError, match=f'case {cases[0].id}: .* the model gives none'):
        bb.score_cases(bad, tokenizer, cases)
    from tokenizers import Tokenizer, models
    nameless = Tokenizer(models.WordLevel({'a': 0, '[UNK]': 1}, '[UNK]'))
    with pytest.raises(ValueError, match='end-of-text'): bb.score_cases(model, nameless, cases)


@pytest.mark.parametrize('text, word', [('original,altered\nrose,\n', 'case 1: both versions should hold text'),
                                        ('original,altered\nit rose,it fell\nrose,rose\n', 'case 2: .*the same'),
                                        ('doi,original_abstract\n1,rose\n', 'columns'),
                                        ('marked\n"it [[rose]]"\n', 'case 1: .*comma'),
                                        ('original,altered\nit rose,it [[fell\n', 'case 1: .*plain text'),
                                        ('original,altered\n"rose,fell\n', 'cannot be read'),
                                        ('original,altered,marked\nrose,sank,"[[rose,fell]]"\n', 'case 1: .*differ')])
def test_bad_files_are_one_sentence(tmp_path, text, word):
    (tmp_path / 'c.csv').write_text(text)
    with pytest.raises(ValueError, match=word) as caught: bb.load_cases(tmp_path / 'c.csv')
    assert '\n' not in str(caught.value).strip()


def test_a_file_in_another_encoding_is_refused(tmp_path):
    (tmp_path / 'c.csv').write_bytes('original,altered\nnaïve rose,naïve fell\n'.encode('latin-1'))
    with pytest.raises(ValueError, match='UTF-8'): bb.load_cases(tmp_path / 'c.csv')


def test_the_controls_pass_on_a_sound_benchmark_and_notice_a_broken_score(monkeypatch):
    cases = science(0).cases()
    tokenizer = train_tokenizer([c.original for c in cases], 600)
    table = bb.controls(cases, tokenizer, corpus=science(0).papers()[:1000]).set_index('control')
    assert table.ok[['untrained, mean over seeds', 'last untrained, labels exchanged', 'oracle']].all()
    inner = bb.pair_losses   # a leak: the original is scored a little too well
    monkeypatch.setattr(bb, 'pair_losses', lambda *a: ((a_ - 0.05, b_) for a_, b_ in inner(*a)))
    broken = bb.controls(cases, tokenizer).set_index('control')
    assert not broken.ok['untrained, mean over seeds'] and not broken.ok['last untrained, labels exchanged']


def test_a_benchmark_with_a_tell_is_reported():
    texts = [f'We asked about topic {i}. We waited for a week. It [[rose,did not rise at all]] in number {i}.'
             for i in range(30)]
    table = bb.check_cases(bb.make_cases(texts), corpus=['nothing of the kind ' * 5]).set_index('check')
    assert (not table.ok['length balance'] and not table.ok['guesser: shorter text']
            and table.ok['not in the corpus'] and table.ok['edit inside a result sentence'])
    fair = [f'We asked about topic {i}. We waited for a week. It [[{"rose,fell" if i % 2 else "fell,rose"}]] in '
            f'number {i}.' for i in range(30)]
    table = bb.check_cases(bb.make_cases(fair), corpus=[bb.make_cases(fair)[4].original]).set_index('check')
    assert (table.ok['length balance'] and not table.ok['not in the corpus']
            and 'case' in table.found['not in the corpus'])


# what lesson 54 says without showing it

HEAD = 'original_abstract,incorrect_abstract,combined_abstract\n'


@pytest.mark.parametrize('text, word', [
    ('', 'cannot be read'), ('a,b\n1,2\n', 'it has a, b'), (HEAD, 'no cases'),
    (HEAD + 'it [[rose,it fell,x\n', r'\[\['),
    (HEAD + 'it rose,it fell,x\nit rose,it sank,"it [[rose,fell]]"\n', 'case 2'), ('marked\nit rose\n', 'the same'),
    ('id,original,altered\n7,a b,a c\n7,a d,a e\n', '7 occurs twice'),
    ('original,altered\nit rose,"  "\n', 'case 1: .*empty')])
def test_files_that_hold_no_benchmark(tmp_path, text, word):
    (tmp_path / 'c.csv').write_text(text)
    with pytest.raises(ValueError, match=word): bb.load_cases(tmp_path / 'c.csv')


def test_an_unknown_set_names_the_known_ones():
    with pytest.raises(FileNotFoundError, match='brainbench-human'): bb.load_cases('no-such-set')


@pytest.mark.parametrize('text', ['original,altered\nit rose,it fell\n', 'combined_abstract\n"it [[rose,fell]]"\n',
                                  HEAD + 'it rose,it fell,"it [[rose, fell]]"\n'])
def test_three_forms_of_one_case(tmp_path, text):
    (tmp_path / 'c.csv').write_text(text)
    assert bb.load_cases(tmp_path / 'c.csv') == [Case('1', 'it rose', 'it fell')]


def test_windows_score_every_token_once_and_fit_the_context():
    for n in range(2, 60):
        for n_ctx in (15, 16):
            windows = bb._windows(list(range(n)), n_ctx)
            scored = [t for start, end, first in windows for t in range(start + first, end)]
            assert scored == list(range(1, n)) and all(end - start <= n_ctx for start, end, _ in windows)
            # at least half a context before each
            assert all(first >= n_ctx // 2 for start, _, first in windows if start)


@pytest.mark.parametrize('size', [1, 2, 8])
def test_token_losses_are_those_of_each_row_alone(size):
    model = random_model(50, 32)
    rows = [torch.randint(50, (n,)).tolist() for n in (5, 32, 2, 9, 70)]
    for row, found in zip(rows, bb.token_losses(model, rows, size), strict=True):
        assert found.shape == (len(row) - 1,)
        with torch.no_grad():
            alone = -torch.log_softmax(model(torch.tensor([row[:32]]))[0, :-1], -1)[range(len(row[:32]) - 1), row[1:32]]
        assert np.allclose(found[:31], alone, atol=1e-5)


def test_a_result_is_read_back_whole_and_another_is_not_taken_for_it(small, tmp_path, monkeypatch):
    cases, tokenizer, model = small
    path = tmp_path / 's.parquet'
    scores = bb.score_cases(model, tokenizer, cases, path=path, name='m')
    back = bb.Scores.load(path)
    assert back.frame.equals(scores.frame) and back.name == 'm' and back.meta == json.loads(json.dumps(scores.meta))
    assert {'protocol', 'prompt', 'dtype', 'device', 'windowed', 'model_sha256', 'tokenizer_sha256', 'cases_sha256',
            'versions'} <= set(back.meta)
    monkeypatch.setattr(bb, 'pair_losses', None)   # nothing is scored a second time
    assert bb.score_cases(model, tokenizer, cases, path=path).frame.equals(scores.frame)
    other = random_model(tokenizer.get_vocab_size(), std=0.1)
    for change in (dict(cases=cases[1:]), dict(protocol='paper'), dict(prompt=''), dict(model=other),
                   dict(dtype='bfloat16')):
        with pytest.raises(ValueError, match='another file'):
            bb.score_cases(**{**dict(model=model, tokenizer=tokenizer, cases=cases, path=path), **change})
    import pandas as pd
    pd.DataFrame(dict(x=[1])).to_parquet(tmp_path / 'x.parquet')
    with pytest.raises(ValueError, match='how it was made'): bb.Scores.load(tmp_path / 'x.parquet')


def test_the_progress_of_another_scoring_is_not_taken_up(small, tmp_path):
    cases, tokenizer, model = small
    path, part = tmp_path / 's.parquet', tmp_path / 's.parquet.part.jsonl'
    truth = bb.score_cases(model, tokenizer, cases)
    part.write_text(json.dumps(dict(protocol='another')) + '\n'
                    + json.dumps(dict(id=cases[0].id, section='', original=1.0, altered=2.0)) + '\n')
    assert bb.score_cases(model, tokenizer, cases, path=path).frame.equals(truth.frame)


def test_a_tie_is_wrong_and_what_is_no_number_is_refused():
    import pandas as pd
    one = lambda a, b: bb.Scores('m', pd.DataFrame([dict(id='7', section='', original=a, altered=b)]))
    assert not one(1.0, 1.0).correct[0] and one(1.0, 2.0).correct[0] and not one(2.0, 1.0).correct[0]
    for bad in (float('nan'), float('inf')):
        with pytest.raises(ValueError, match='case 7'): one(bad, 1.0)
        with pytest.raises(ValueError, match='case 7'): one(1.0, bad)
    with pytest.raises(ValueError, match='scored by score_cases'): one(1.0, 2.0).by('nats')


def test_one_broken_token_names_its_case_and_leaves_the_model_as_it_was(small):
    cases, tokenizer, _ = small
    model = random_model(tokenizer.get_vocab_size()).train()
    ids_of = lambda *texts: {i for t in texts for i in tokenizer.encode(' ' + t).ids}
    alone = lambda c: ids_of(c.original) - ids_of(*(t for o in cases if o is not c for t in (o.original, o.altered)))
    case = next(c for c in cases if alone(c))
    plain = bb.token_losses
    assert model.training
    # the softmax of every position is lost
    with torch.no_grad(): model.wte.weight[min(alone(case))] = float('nan')
    with pytest.raises(ValueError, match=f'case {cases[0].id}: the original version should have a finite'):
        bb.score_cases(model, tokenizer, cases)
    assert model.training and plain is bb.token_losses


def test_the_default_protocol_by_one_plain_call(small):
    cases, tokenizer, model = small
    frame = bb.score_cases(model, tokenizer, cases[:2], prompt='In short: ').frame
    for i, case in enumerate(cases[:2]):
        own = tokenizer.encode(' ' + case.original).ids
        ids = [tokenizer.token_to_id('<|endoftext|>')] + tokenizer.encode('In short:').ids + own
        with torch.no_grad(): logits = model(torch.tensor([ids]))[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction='none')[-len(own):]
        nats = losses.sum().item()
        assert frame['original_tokens'][i] == len(own) and abs(frame['original_nats'][i] - nats) < 1e-3
        assert abs(np.log(frame['original'][i]) - nats / len(own)) < 1e-5
        assert abs(frame['original_bits_per_byte'][i] - nats / np.log(2) / len(case.original.encode())) < 1e-5


@pytest.mark.parametrize('cases, word', [
    ([], 'at least one case'),
    ([Case('1', 'it rose', 'it fell'), Case('1', 'it ran', 'it sat')], 'case 1: every id should occur once'),
    ([Case('1', 'it rose', 'it fell'), Case('x', 'it rose', 'it rose')], 'case x: .*the same'),
    ([Case('x', ' ', 'it rose')], 'case x: .*empty'),
    ([Case('x', 'it [[rose,fell]]', 'it fell')], 'case x: .*plain text')])
def test_cases_made_in_code_are_checked_as_those_of_a_file(small, cases, word, tmp_path):
    _, tokenizer, model = small
    for use in (lambda: bb.score_cases(model, tokenizer, cases), lambda: bb.score_texts('length', len, cases),
                lambda: bb.check_cases(cases),
                lambda: bb.write_harness_task(tmp_path / 'task', cases)):
        with pytest.raises(ValueError, match=word): use()
    assert not (tmp_path / 'task').exists()


def test_a_tokenizer_that_looks_like_another_models_is_said(small, capsys):
    cases, tokenizer, _ = small
    bb.score_cases(random_model(tokenizer.get_vocab_size()), tokenizer, cases[:1])
    assert 'belong' not in capsys.readouterr().out
    model = GPT2(GPT2Config(tokenizer.get_vocab_size(), 1, 1, 8, 256, eos_token_id=7))
    bb.score_cases(model, tokenizer, cases[:1])
    end = tokenizer.token_to_id('<|endoftext|>')
    said = f"end-of-text token is {end} and the model's is 7: do they belong together?"
    assert said in capsys.readouterr().out


def test_a_part_of_the_text_that_is_common_costs_nothing(small, monkeypatch):
    cases, tokenizer, model = small
    read = []
    inner = bb._walk
    monkeypatch.setattr(bb, '_walk', lambda model, ids, *rest: (read.append(len(ids)), inner(model, ids, *rest))[1])
    bb.score_cases(model, tokenizer, cases, 'paper')
    rows = [[tokenizer.encode((bb.PROMPT + t).strip()).ids for t in (c.original, c.altered)] for c in cases]
    begin = os.path.commonprefix([row for pair in rows for row in pair])
    once = len(begin) + sum(len(a) + len(b) - len(os.path.commonprefix([a, b])) - len(begin) for a, b in rows)
    assert sum(read) == once < sum(len(a) + len(b) for a, b in rows)


def test_edits_in_the_opening_or_over_the_end_of_a_sentence_are_reported():
    fine = [f'We asked about {t}. We waited. It [[rose,fell]].' for t in ('rats', 'mice', 'fish')]
    found = lambda texts: bb.check_cases(bb.make_cases(texts)).set_index('check').loc['edit inside a result sentence']
    assert found(fine).ok
    for bad in ('We [[asked,knew]] about rats. We waited. It rose.',
                'We asked about rats. We [[waited. It rose,waited until it fell]].'):
        assert not found(fine + [bad]).ok and found(fine + [bad]).found.endswith('1 of 4 have one elsewhere: case 4')


@pytest.mark.parametrize('ids', [['1', '2', '3'], ['c', 'a', 'b', 'e', 'd']])
def test_guessers_answer_every_case_in_order_and_never_from_their_own_half(ids):
    cases = [Case(i, f'it {w} much', f'it {w} little') for i, w in zip(ids, ('rose', 'fell', 'ran', 'sat', 'slept'))]
    found = bb.guessers(cases)
    assert all(s.frame['id'].tolist() == ids for s in found.values())
    assert found['word unigram'].accuracy == 1   # "much" stands in the other half's originals
    lone = bb.guessers([Case(i, f'it {a}', f'it {b}') for i, a, b in zip('wxyz', 'abcd', 'efgh')])['word unigram']
    assert (lone.margin == 0).all()   # nobody learns from the case itself
    table = bb.guessers(cases[:2], corpus=['it rose little', 'it fell little'])
    assert table['word trigram'].accuracy == 0 and table['word trigram'].meta['counted_in'] == 'the corpus'


# ---- token X-ray

XRAY = [('freezing rose today', 'freezing fell today'), ('it did not change', 'it changed'), ('a b c', 'a b c d'),
        ('x', 'y'),
        ('<b>bold</b> & rose', '<b>bold</b> & fell')]


@pytest.mark.parametrize('a, b', XRAY)
def test_the_xray_aligns_two_versions_and_its_differences_add_up(a, b):
    tokenizer = train_tokenizer(['freezing rose and fell today it did not change changed a b c d'] * 3, 300)
    ids = [tokenizer.encode(t).tokens for t in (a, b)]
    values = [[(7 * i + len(t)) % 5 for i, t in enumerate(tokens)] for tokens in ids]
    view = bb.show_versions(tokenizer, Case('1', a, b), values)
    for k in (0, 1):
        assert [v for column in view.columns for _, v in column[k]] == values[k]                # nothing lost, in order
        assert ''.join(piece for column in view.columns for piece, _ in column[k]) == (a, b)[k]
    assert sum(d for *_, d in view.columns) == sum(values[1]) - sum(values[0])
    assert repr(view).endswith(f'difference {sum(values[1]) - sum(values[0]):+.1f}')
    drawn = view._repr_html_()
    assert drawn.count('<th scope="row"') >= 3 and '>difference</th>' in drawn and '<b>bold' not in drawn
    # readable without colour
    assert all(f'<rt style="font-size:.7em">{v}</rt>' in drawn for row in values for v in row)


def test_the_xray_shows_a_line_without_a_difference_once():
    tokenizer = train_tokenizer(['the rats were studied for many days and then freezing rose or fell'] * 3, 400)
    a = 'the rats were studied for many days and then ' * 2 + 'the rats were studied '
    case = Case('1', a + 'freezing rose', a + 'freezing fell')
    values = [[1.0] * len(tokenizer.encode(t).ids) for t in (case.original, case.altered)]
    drawn = bb.show_versions(tokenizer, case, values)._repr_html_()
    assert drawn.count('>both</th>') >= 1 and drawn.count('>original</th>') == drawn.count('>altered</th>') == 1
    with pytest.raises(ValueError, match='of altered'): bb.show_versions(tokenizer, case, (values[0], values[1][1:]))


def test_aligned_parts_are_equal_or_different_and_whole():
    parts = bb.align([*'abcxdef'], [*'abcyydef'])
    assert [(''.join(p), ''.join(q)) for p, q in parts] == [('abc', 'abc'), ('x', 'yy'), ('def', 'def')]
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = ([str(x) for x in rng.integers(0, 4, rng.integers(0, 9))] for _ in range(2))
        parts = bb.align(a, b)
        assert [x for p, _ in parts for x in p] == a and [x for _, p in parts for x in p] == b
        same = [p == q for p, q in parts]
        assert all(x != y for x, y in zip(same, same[1:]))
