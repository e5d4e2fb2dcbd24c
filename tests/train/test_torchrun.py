"""The command line's pretrain step: under torchrun, with both recipes, and from a trained model."""
import json, re, shutil, subprocess, sys
from types import SimpleNamespace

import pytest
import torch
from processes import HERE, TORCHRUN, launch, on_ranks

from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config, num_params
from domain_llm.model.weights import load_gpt2, save_model
from domain_llm.text.synthetic import SyntheticScience
from domain_llm.tokens.tokenizer import load_tokenizer, train_tokenizer
from domain_llm.train.runs import read_log


def command(*words):
    "Run the command line in this process; give its exit code."
    from domain_llm.app.cli import main
    with pytest.raises(SystemExit) as end: main([str(word) for word in words])
    return end.value.code


@pytest.fixture(scope='module')
def tokens(tmp_path_factory):
    "Do the steps before training by the command line."
    home = tmp_path_factory.mktemp('cli')
    papers = [json.dumps(dict(text=text)) for text in SyntheticScience(0).papers(600)]
    (home / 'papers.jsonl').write_text('\n'.join(papers))
    steps = ['corpus', home / 'papers.jsonl'], ['tokenizer', '--vocab-size', 500], ['tokens']
    for words in steps: assert not command(*words, '--out', home / 'out')
    return home / 'out'


def logged(folder, key): return [line[key] for line in read_log(folder) if key in line]


@pytest.mark.skipif(not torch.distributed.is_available() or sys.platform == 'win32',
                    reason='needs torch.distributed')
def test_the_command_line_under_torchrun(tokens, tmp_path):
    shutil.copytree(tokens, tmp_path / 'two')
    words = ['pretrain', '--size', 'demo', '--out', tmp_path / 'two', '--steps']
    done = launch(*TORCHRUN, '-m', 'domain_llm', *words, 4)
    assert '2 processes' in done.stdout and done.stdout.count('parameters on') == 1
    assert len(logged(tmp_path / 'two/pretrain', 'loss')) == 4
    assert (tmp_path / 'two/pretrain/model/tokenizer.json').exists()
    front = HERE.parents[1] / 'domain_llm/__main__.py'     # the same without torchrun's imports
    def again(steps, ok=True): return on_ranks(2, tmp_path, front, *words, steps, ok=ok)
    assert 'already done' in again(4)
    assert 'made from other inputs' in again(3, ok=False)
    assert 'was done with 4 steps' in again(6)
    assert len(logged(tmp_path / 'two/pretrain', 'loss')) == 6
    assert 'already done' in again(6)


def test_the_examples_are_torchrun_underneath():
    examples = HERE.parents[1] / 'examples'
    for name in ('slurm.sh', 'skypilot.yaml'):
        text = (examples / name).read_text()
        assert 'torchrun' in text and '-m domain_llm pretrain --out' in text
    subprocess.run(['bash', '-n', examples / 'slurm.sh'], check=True)


def test_recipes_samples_and_finetuning(tokens, tmp_path, capsys):
    a, b = tmp_path / 'a', tmp_path / 'b'
    for out in a, b: shutil.copytree(tokens, out)
    go = ['pretrain', '--size', 'demo', '--steps', 3, '--out']
    assert command(*go, a, '--recipe', 'paper') == 0
    about = json.loads((a / 'pretrain/config.json').read_text())
    rates = [about['train'][name] for name in ('lr', 'eps', 'decay_norms')]
    assert rates == [2e-5, 1e-6, True] and about['model']['dropout'] == 0.1
    samples = logged(a / 'pretrain', 'sample')
    assert samples and all(isinstance(sample, str) for sample in samples)
    assert command(*go, b, '--recipe', 'slow') == 1
    assert 'one of fast, paper' in capsys.readouterr().err

    start = a / 'pretrain/model'
    assert command(*go, b, '--from', start) == 0
    # it begins where the other ended
    first = logged(b / 'pretrain', 'validation_loss')[0]
    assert abs(first - logged(a / 'pretrain', 'validation_loss')[-1]) < 1e-5
    about = json.loads((b / 'pretrain/config.json').read_text())
    assert about['train']['muon_lr'] == pytest.approx(0.002)

    assert command('tokenizer', '--vocab-size', 400, '--out', b, '--force') == 0
    assert command('tokens', '--out', b, '--force') == 0
    assert command(*go, b, '--from', start, '--force') == 1
    assert 'another tokenizer' in capsys.readouterr().err
    assert command('tokenizer', '--from', start, '--out', b, '--force') == 0
    assert command('tokens', '--out', b, '--force') == 0
    assert command(*go, b, '--from', start, '--force') == 0


def test_from_a_padded_table_a_name_on_the_hub_and_without_a_tokenizer(
        tokens, tmp_path, capsys, monkeypatch):
    out, start = tmp_path / 'out', tmp_path / 'start'
    shutil.copytree(tokens, out)
    torch.manual_seed(0)
    model = GPT2(GPT2Config.preset('toy', 512))         # the tokenizer has 500
    save_model(model, start, load_tokenizer(out / 'tokenizer'))
    go = ['pretrain', '--size', 'demo', '--steps', 1, '--out', out, '--force', '--from']
    assert command(*go, start) == 0 and load_gpt2(out / 'pretrain/model').cfg.vocab_size == 512

    assert command('tokenizer', '--from', 'some/model', '--out', out, '--force') == 1
    assert 'nothing could be fetched' in capsys.readouterr().err
    def fetched(name, allow_patterns): return str(start)
    monkeypatch.setattr('huggingface_hub.snapshot_download', fetched)
    assert command('tokenizer', '--from', 'some/model', '--out', out, '--force') == 0
    assert command('tokens', '--out', out, '--force') == 0
    assert command(*go, 'some/model') == 0

    save_model(GPT2(GPT2Config.preset('toy', 499)), start, load_tokenizer(out / 'tokenizer'))
    assert command(*go, start) == 1
    assert 'a row for each of the 500 tokens' in capsys.readouterr().err
    texts = ['another text ' * 3] * 3                   # another tokenizer of the same size
    save_model(model, start, train_tokenizer([*texts, *SyntheticScience(1).papers(300)], 500))
    assert load_tokenizer(start).get_vocab_size() == 500
    assert command(*go, start) == 1
    assert 'which has another tokenizer' in capsys.readouterr().err
    (start / 'tokenizer.json').unlink()
    for words in go, ['tokenizer', '--out', out, '--force', '--from']:
        assert command(*words, start) == 1
        assert 'should have a tokenizer beside its weights' in capsys.readouterr().err
    for left in 'tokenizer/tokenizer.json', 'pretrain/model': assert (out / left).exists()


@pytest.mark.parametrize('layout', ['paper', 'paper-spt'])
def test_the_papers_rows_from_the_command_line(tokens, tmp_path, layout):
    out = tmp_path / 'out'
    shutil.copytree(tokens, out)
    assert command('tokens', '--layout', layout, '--out', out, '--force') == 0
    go = ['pretrain', '--size', 'demo', '--recipe', 'paper', '--lr', 2e-6, '--out', out]
    assert command(*go, '--steps', 3) == 0
    about = json.loads((out / 'pretrain/config.json').read_text())
    assert about['train']['lr'] == 2e-6 and len(logged(out / 'pretrain', 'loss')) == 3


GPT2_ON_THE_HUB = 'openai-community/gpt2'
# from the paper's logs and code: rows of its corpus, updates in five epochs, the length of the
# schedule in quarters of an update, tokens in an update, the peak rate, the layout of the rows,
# the model on the hub whose tokenizer it takes, and whether it goes on from that model
PAPER = {
    'gpt2_scratch': (
        1_131_533, 11_050, 44_205, 524_288, 2e-5, 'paper', GPT2_ON_THE_HUB, False),
    'finetune_gpt2': (
        1_131_533, 11_050, 44_205, 524_288, 2e-5, 'paper', GPT2_ON_THE_HUB, True),
    'finetune_gpt2_lr2e-6': (
        1_131_533, 11_050, 44_205, 524_288, 2e-6, 'paper', GPT2_ON_THE_HUB, True),
    'gpt2_scratch_neuro_tokenizer': (
        994_516, 9_710, 38_850, 524_288, 2e-5, 'paper', None, False),
    'gpt2_scratch_neuro_tokenizer_spt': (
        995_782, 9_725, 38_900, 524_288, 2e-5, 'paper-spt', None, False),
    'gpt2-medium_scratch_neuro_tokenizer': (
        994_516, 19_420, 77_700, 262_144, 2e-5, 'paper', None, False),
    'gpt2-medium_scratch_neuro_tokenizer_spt': (
        995_782, 19_445, 77_800, 262_144, 2e-5, 'paper-spt', None, False),
    'gpt2-large_scratch_neuro_tokenizer': (
        994_516, 38_845, 155_395, 131_072, 2e-5, 'paper', None, False)}
PARAMETERS = {'gpt2': 124_439_808, 'gpt2-medium': 354_823_168, 'gpt2-large': 774_030_080}


def table_of_commands():
    "Read the paper's runs from lesson 45: {name: (words of the command, tokens in an update)}."
    lesson = json.loads((HERE.parents[1] / 'nbs/45_pretraining.ipynb').read_text())
    cells = [''.join(cell['source']) for cell in lesson['cells']]
    text = next(cell for cell in cells if cell.startswith("## The paper's runs"))
    begin = re.search(r'`domain-llm (run .+?)`', text)[1].replace('…', 'here').split()
    rows = re.findall(r'^\| (\S+) \| `(.+?)` \| ([\d,]+) \|$', text, re.M)
    return {name: (begin + options.split(), int(n.replace(',', ''))) for name, options, n in rows}


@pytest.mark.parametrize('name', PAPER)
def test_each_row_of_the_papers_table_is_one_command(tmp_path, monkeypatch, name):
    from domain_llm.app import cli, steps
    words, said = table_of_commands()[name]
    n_rows, updates, quarters, tokens, lr, layout, hub, goes_on = PAPER[name]
    out, found = tmp_path / 'here', {}
    words[words.index('runs/here')] = str(out)
    (out / 'tokens').mkdir(parents=True)
    meta = dict(vocab_size=50_257, eos_token_id=0, tokenizer_sha256='that of GPT-2')
    (out / 'tokens/meta.json').write_text(json.dumps(meta))

    def once(out, step, inputs, work, force):
        (out / 'steps.json').write_text(json.dumps({step: dict(inputs=inputs, done=False)}))
        work(out / step)

    def train(folder, out, size, seed, minutes, n_steps, cases, **how):
        batches = SimpleNamespace(n_windows=n_rows)
        how.pop('compile')
        found.update(config=steps._train_config(
            folder, None, batches, size, seed, n_steps, minutes, **how),
            model=steps.new_model(out), size=size, start=how.get('start'))

    def make_tokens(folder, corpus, tokenizer, layout): found.update(layout=layout)
    def make_tokenizer(folder, corpus, vocab_size, start, recipe): found.update(tokenizer=start)
    for part in (once, train, make_tokens, make_tokenizer):
        monkeypatch.setattr(cli, part.__name__, part)
    for part in ('_corpus_step', '_evaluate_steps', '_report_step', 'step_folder', 'fingerprint'):
        monkeypatch.setattr(cli, part, lambda *_, **__: 'x')
    monkeypatch.setattr(cli, '_case_sets', lambda names: {})
    beside = SimpleNamespace(get_vocab_size=lambda: 50_257)
    (tmp_path / 'tokenizer.json').write_text('{}')
    for module in cli, steps:
        monkeypatch.setattr(module, 'start_tokenizer', lambda name: tmp_path)
    monkeypatch.setattr('domain_llm.tokens.tokenizer.load_tokenizer', lambda folder: beside)
    monkeypatch.setattr('domain_llm.tokens.tokenizer.tokenizer_sha256', lambda _: 'that of GPT-2')
    monkeypatch.setattr('domain_llm.model.fast.GPT2', lambda cfg: SimpleNamespace(cfg=cfg))
    pretrained = SimpleNamespace(cfg=GPT2Config(dropout=0.1))
    monkeypatch.setattr('domain_llm.model.models.load_model', lambda name: (pretrained, beside))
    assert command(*words) == 0

    config = found['config']
    assert said == config.tokens_per_step == tokens
    assert (config.steps, config.schedule_steps) == (updates, quarters / 4)
    assert (config.lr, config.muon_lr, config.warmup) == (lr, 0, 0.03)
    assert (config.betas, config.eps) == ((0.9, 0.999), 1e-6)
    assert (config.weight_decay, config.decay_norms, config.clip) == (0.001, True, 0)
    assert (found['layout'], found['tokenizer']) == (layout, hub)
    assert found['start'] == (hub if goes_on else None)
    model = found['model'].cfg
    assert num_params(model) == PARAMETERS[found['size']] and model.dropout == 0.1
    assert found['model'] is pretrained or not goes_on
    assert table_of_commands().keys() == PAPER.keys()


def test_a_precision_that_was_asked_for_is_said_and_used(tokens, tmp_path, capsys):
    out = tmp_path / 'out'
    shutil.copytree(tokens, out)
    go = ['pretrain', '--size', 'demo', '--steps', 1, '--out', out, '--device', 'cpu']
    assert command(*go, '--precision', 'bfloat16') == 0
    assert 'parameters on cpu in bfloat16: bfloat16 was asked for' in capsys.readouterr().out
    assert command(*go) == 1 and 'precision bfloat16 there' in capsys.readouterr().err
    assert command(*go[:-1], 'tpu', '--force') == 1
    assert '`device` should be one that is here' in capsys.readouterr().err
