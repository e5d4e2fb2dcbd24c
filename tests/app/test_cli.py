"""The command line as its users meet it: words and exit codes, bad input, kills, a full disk."""
import csv, functools, io, json, os, random, shutil, signal, subprocess, sys
from contextlib import redirect_stderr, redirect_stdout
from functools import partialmethod
from pathlib import Path

import pytest
from forks import fork, said_into

from domain_llm.app.cli import main
from domain_llm.app.steps import SIZES
from domain_llm.text.synthetic import SyntheticScience
from domain_llm.train.distributed import Trainer

ENV = {**os.environ, 'HF_HUB_OFFLINE': '1', 'OMP_NUM_THREADS': '1'}
DATA = ENV.pop('DOMAIN_LLM_DATA', '')


def cli(*args):
    "Give a command in this process, which spares the imports; a bug is raised."
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(list(map(str, args)))
    return subprocess.CompletedProcess(args, ended.value.code or 0, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    "Hide the data folder, if there is one."
    monkeypatch.delenv('DOMAIN_LLM_DATA', raising=False)


def refused(*words, code=1, args):
    "Check that a command fails with one sentence that holds the words, and no traceback."
    done = cli(*args)
    assert done.returncode == code, done.stderr
    assert 'Traceback' not in done.stderr and 'Traceback' not in done.stdout
    last = done.stderr.strip().splitlines()[-1]
    if code == 1: assert last.startswith('domain-llm: ') and last.endswith('.'), last
    for word in words: assert word in done.stderr, done.stderr
    return done


science = functools.cache(SyntheticScience)


def papers(path, n=400):
    Path(path).write_text('\n'.join(json.dumps(dict(text=t)) for t in science(0).papers(n)))
    return path


def cases(path, rows=None, header=('original_abstract', 'incorrect_abstract')):
    with open(path, 'w', newline='') as f:
        own = [(c.original, c.altered) for c in science(0).cases()[:20]]
        csv.writer(f).writerows([header] + (rows or own))
    return path


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    "Make a run of all steps, one command each."
    home = tmp_path_factory.mktemp('run')
    papers(home / 'p.jsonl', 1500)
    cases(home / 'c.csv')
    for args in (['corpus', home / 'p.jsonl', '--cases', home / 'c.csv'],
                 ['tokenizer', '--vocab-size', 600], ['tokens'],
                 ['pretrain', '--size', 'demo', '--steps', 5],
                 ['evaluate', '--cases', home / 'c.csv'], ['report']):
        done = cli(*args, '--out', home / 'out')
        assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def run(finished, tmp_path):
    "Copy it, so that a test may harm the copy."
    shutil.copytree(finished, tmp_path / 'run')
    return tmp_path / 'run'


def test_runs_beside_one_say_how_it_may_end(run, tmp_path):
    "Put done runs of the same text beside a new one, which says at half-time how it may end."
    parts = 'corpus', 'tokenizer', 'tokens'
    noted = json.loads((run / 'out/steps.json').read_text())
    for name in 'few', 'enough':
        for part in parts: shutil.copytree(run / 'out' / part, tmp_path / name / 'new' / part)
        steps = json.dumps({part: noted[part] for part in parts})
        (tmp_path / name / 'new/steps.json').write_text(steps)
        for i in range(3 if name == 'enough' else 2):
            done = tmp_path / name / f'done {i}' / 'pretrain'
            done.mkdir(parents=True)
            shutil.copy(run / 'out/pretrain/config.json', done)                   # of five steps
            losses = (0, 6.4), (1, 5 + i / 9), (2, 4), (3, 3.5), (5, 3 - i / 9)
            (done / 'log.jsonl').write_text(''.join(
                json.dumps(dict(step=step, validation_loss=loss)) + '\n' for step, loss in losses))
        new = cli('pretrain', '--size', 'demo', '--steps', 20, '--out', tmp_path / name / 'new')
        assert new.returncode == 0, new.stderr
        said = [line for line in new.stdout.splitlines() if 'forecast' in line]
        if name == 'few': assert said == []
        else: assert len(said) == 1 and 'after 50%' in said[0] and '3 runs' in said[0]


def test_each_step_is_a_command_and_is_skipped_when_done(run):
    done = cli('tokens', '--out', run / 'out')
    assert done.returncode == 0 and 'already done' in done.stdout
    assert 'tokens of' in cli('tokens', '--out', run / 'out', '--force').stdout
    said = cli('report', '--out', run / 'out').stdout
    assert 'already done' in said and 'trained GPT-2' in said and 'chance' in said


def headings_and_tables(path):
    "Read a report: its headings, and {caption: rows of cells}."
    from lxml import html
    tree = html.fromstring(path.read_bytes())
    tables = {t.xpath('string(caption)'): [[''.join(cell.itertext()) for cell in row]
                                           for row in t.xpath('tbody/tr')]
              for t in tree.iter('table')}
    assert len(tree.xpath('//img')) == len([a for a in tree.xpath('//img/@alt') if a.strip()])
    assert not tree.xpath('//script | //link')
    for section in tree.xpath('//section[.//img]'):
        assert section.xpath('.//table'), section.xpath('string(h2)')
    return [h.text for h in tree.iter('h2')], tables


def test_the_report_is_the_evaluation_with_its_controls(run):
    headings, tables = headings_and_tables(run / 'out/report.html')
    assert headings == [
        'What was found (c)', 'What this is', 'Accuracy (c)', 'Does it know when it knows? (c)',
        'How were the models asked? (c)', 'Can the score be trusted? (c)', 'Training',
        'What the model writes when left alone', 'What it was made from']
    first = [row[0] for row in tables['Right answers, accuracy and its 95 % interval']]
    assert first == ['untrained GPT-2', 'token trigram', 'trained GPT-2', 'chance']
    controls = {row[0]: row for row in tables['Can the score be trusted? (c)']}
    assert set(controls) == {
        'untrained, mean over seeds', 'last untrained, labels exchanged', 'oracle', 'shorter text',
        'zlib', 'word unigram', 'word trigram'}
    counted = [row[0] for row in tables['Training']]  # named as in every other table
    assert counted == ['uniform', 'token unigram', 'token bigram', 'trained GPT-2']
    assert controls['oracle'][1:4] == ['20.000', '20', '1.000'] and controls['oracle'][-1] == 'yes'
    drawn = {p.name for p in (run / 'out/figures').iterdir()}
    assert {name for name in drawn if '.png' in name} == {
        'accuracy-c.png', 'does-it-know-when-it-knows-c.png', 'training.png'}
    with open(run / 'out/figures/accuracy-c.csv', newline='') as file:
        rows = [*csv.DictReader(file)]
    assert [row['who'] for row in rows] == first and rows[-1]['accuracy'] == '0.5'


def test_scores_of_a_model_that_is_gone_are_not_published_as_those_of_the_new_one(run):
    cases(run / 'two.csv')
    args = ['--out', run / 'out']
    assert cli('pretrain', '--size', 'demo', '--steps', 6, '--seed', 1, '--force',
               *args).returncode == 0
    page = (run / 'out/report.html').read_bytes()
    for command in ['evaluate', '--cases', run / 'two.csv'], ['report', '--force']:
        refused('evaluate/c should hold scores of the model that is there now',
                args=[*command, *args])
        assert (run / 'out/report.html').read_bytes() == page
    asked = 'evaluate', '--cases', run / 'c.csv', run / 'two.csv', '--force'
    assert cli(*asked, *args).returncode == 0 and cli('report', *args).returncode == 0
    assert (run / 'out/report.html').read_bytes() != page


def test_report_keeps_what_a_demo_and_a_run_said_of_themselves(tmp_path):
    from domain_llm.app.cli import DEMO
    assert cli('demo', '--steps', 2, '--out', tmp_path / 'toy').returncode == 0
    page = (tmp_path / 'toy/report.html').read_text()
    done = cli('report', '--out', tmp_path / 'toy')
    assert done.returncode == 0 and 'trained GPT-2' in done.stdout, done.stderr
    assert (tmp_path / 'toy/report.html').read_text() == page
    assert cli('report', '--force', '--out', tmp_path / 'toy').returncode == 0
    page = (tmp_path / 'toy/report.html').read_text()
    assert DEMO in page and '<h1>A language model in a synthetic science (seed 0)</h1>' in page
    refused('--force', args=['demo', '--steps', 3, '--out', tmp_path / 'toy'])
    refused('evaluate/held-out-findings should hold', args=['report', '--out', tmp_path / 'toy'])
    done = cli('run', '--corpus', papers(tmp_path / 'p.jsonl', 1500), '--size', 'demo',
               '--minutes', 0.01, '--cases', cases(tmp_path / 'c.csv'), '--out', tmp_path / 'run')
    assert done.returncode == 0, done.stderr
    assert 'already done' in cli('report', '--out', tmp_path / 'run').stdout


def test_a_control_that_fails_is_said(run):
    path = run / 'out/evaluate/c/controls.csv'
    path.write_text(path.read_text().replace('20.0,20,1.0,1,True', '19.0,20,0.95,1,False'))
    assert cli('report', '--out', run / 'out', '--force').returncode == 0
    assert 'Not as expected: oracle' in (run / 'out/report.html').read_text()


@pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')
def test_the_report_puts_the_experts_beside_the_model(run, monkeypatch):
    from domain_llm.experts.verdict import published_scores
    monkeypatch.setenv('DOMAIN_LLM_DATA', DATA)
    folder = run / 'out/evaluate/brainbench-human'
    folder.mkdir()
    for name, model in (('trained GPT-2', 'gpt2-large_scratch_neuro_tokenizer'),
                        ('untrained GPT-2', 'gpt2_init')):
        scores = published_scores(model)
        scores.name = name
        scores.save(folder / f'{name}.parquet')
    done = cli('report', '--out', run / 'out', '--force')
    above = ('trained GPT-2 is within 14.3 points of the experts, which is not called a match, '
             'since no margin was named beforehand; it is above them: +8.6 points')
    assert done.returncode == 0 and above in done.stdout, done.stderr
    headings, tables = headings_and_tables(run / 'out/report.html')
    assert headings[1] == 'What this is'  # behind the answer
    assert headings[:1] + headings[2:8] == [f'{heading} (brainbench-human)' for heading in (
        'What was found', 'Against the experts', 'Accuracy', 'By subfield',
        'Does it know when it knows?', 'Are the same cases hard for all?',
        'Who is right where the others are wrong? trained GPT-2')]
    every = [rows for caption, rows in tables.items() if caption.startswith('Every case')]
    assert [len(rows) for rows in every] == [200]


def test_the_model_is_what_transformers_loads(run):
    import torch
    import transformers
    from domain_llm.model.weights import load_gpt2
    folder = run / 'out/pretrain/model'
    judge = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    cut = transformers.AutoTokenizer.from_pretrained(folder)
    model, ids = load_gpt2(folder), torch.tensor([cut('Muscimol in the amygdala')['input_ids']])
    with torch.no_grad(): assert (model(ids) - judge(ids).logits).abs().max() < 1e-4


def test_wrong_usage_is_exit_code_2(tmp_path):
    for args in (['demo', '--nonsense'], ['fly'], ['corpus', '--out', tmp_path],
                 ['demo', '--steps', '0'], ['pretrain', '--out', tmp_path, '--minutes', 'many']):
        refused(code=2, args=args)


@pytest.mark.parametrize('name, content, words', [
    ('missing.txt', None, 'missing.txt'), ('empty.txt', b'', 'empty file'),
    ('c.csv', b'a,b\n1,2\n', "should have a column or field 'text'"),
    ('x.xml', b'<article><front>', 'broken'), ('d.docx', b'x', '.docx'),
    ('e.jsonl', b'{"a"\n', 'invalid JSON'), ('z.parquet', b'PAR', 'broken')])
def test_a_bad_corpus_is_a_sentence(tmp_path, name, content, words):
    if content is not None: (tmp_path / name).write_bytes(content)
    refused(words, args=['corpus', tmp_path / name, '--out', tmp_path / 'out'])
    assert not (tmp_path / 'out/corpus').exists()


def test_bytes_that_are_not_text_are_left_out_counted_and_reported(tmp_path):
    named = {'a.txt': b'na\xefve words', 'b.txt': b'good words', 'c.xml': b'<article>',
             'd.txt': b'other words'}
    for name, content in named.items(): (tmp_path / name).write_bytes(content)
    done = cli('corpus', *(tmp_path / name for name in named), '--out', tmp_path / 'out')
    assert done.returncode == 0 and 'not UTF-8' in done.stdout and 'c.xml (broken' in done.stdout
    card = json.loads((tmp_path / 'out/corpus/card.json').read_text())
    assert card['documents'] == 2
    assert card['dropped'] == {'not read: not UTF-8': 1, 'not read: broken': 1}
    assert 'Corpus card' in (tmp_path / 'out/corpus/card.html').read_text()


@pytest.mark.parametrize('rows, header, words', [
    ([('a', 'b')], ('one', 'two'), 'but got one, two'),
    ([('it [[rose, fell', 'it fell')], None, '[[ or ]]'),
    ([('same', 'same')], None, 'the same'), ([('', 'b')], None, 'empty')])
def test_bad_cases_are_a_sentence_before_any_work(tmp_path, rows, header, words):
    cases(tmp_path / 'c.csv', rows, header or ('original_abstract', 'incorrect_abstract'))
    refused(words, args=['run', '--corpus', papers(tmp_path / 'p.jsonl'),
                         '--cases', tmp_path / 'c.csv', '--out', tmp_path / 'out'])
    assert not (tmp_path / 'out').exists()


def test_missing_and_empty_cases(tmp_path):
    (tmp_path / 'empty.csv').write_bytes(b'')
    corpus = ['corpus', papers(tmp_path / 'p.jsonl'), '--out', tmp_path / 'out', '--cases']
    for path, word in ((tmp_path / 'none.csv', 'neither'), (tmp_path, 'neither'),
                       (tmp_path / 'empty.csv', 'cannot be read')):
        refused(word, args=[*corpus, path])


def test_a_step_without_the_one_before_names_it(tmp_path):
    out = ['--out', tmp_path / 'none']
    for step, needs in (('tokenizer', 'corpus'), ('tokens', 'corpus'), ('pretrain', 'tokens'),
                        ('report', 'evaluate')):
        refused(f'run `domain-llm {needs}`', args=[step, *out])
    refused('run `domain-llm pretrain`',
            args=['evaluate', '--cases', cases(tmp_path / 'c.csv'), *out])


def test_a_corpus_too_small_for_one_batch(tmp_path):
    refused('`tokens` should be at least', args=[
        'run', '--corpus', papers(tmp_path / 'p.jsonl', 5), '--cases', cases(tmp_path / 'c.csv'),
        '--size', 'demo', '--minutes', '0.01', '--out', tmp_path / 'out'])
    assert (tmp_path / 'out/tokens/meta.json').exists()


AGAIN = ['pretrain', '--size', 'demo', '--minutes', 0.01, '--force', '--out']


def test_a_tokenizer_that_is_not_the_tokens_own(run):
    assert cli('tokenizer', '--vocab-size', 500, '--out', run / 'out', '--force').returncode == 0
    refused('another tokenizer', args=[*AGAIN, run / 'out'])


def test_damaged_tokens_and_settings(run):
    data = (run / 'out/tokens/train.bin').read_bytes()
    (run / 'out/tokens/train.bin').write_bytes(data[:-8])
    refused('cut short', args=[*AGAIN, run / 'out'])
    (run / 'out/steps.json').write_text('{"corpus": ')
    refused('cannot be read', args=['tokens', '--out', run / 'out'])


def test_the_folder_of_another_run_is_refused_and_kept(run):
    before = {p: p.read_bytes() for p in (run / 'out').rglob('*') if p.is_file()}
    refused('made from other inputs', 'choose another --out',
            args=['corpus', papers(run / 'other.jsonl', 50), '--out', run / 'out'])
    refused('made from other inputs', args=['pretrain', '--out', run / 'out', '--size', 'toy'])
    refused('made from other inputs', args=['demo', '--out', run / 'out'])
    assert before == {p: p.read_bytes() for p in (run / 'out').rglob('*') if p.is_file()}


FIRST_FILES = {
    'corpus/train/data.arrow': 'papers',
    'corpus/card.json': '{}',
    'tokenizer/tokenizer.json': '{"model": 1}',
    'tokens/train.bin': 'ids',
    'tokens/meta.json': '{"vocab_size": 668}',
    'pretrain/config.json': '{}',
    'pretrain/log.jsonl': '{"step": 0, "loss": 6.5}',
}
# with the fingerprints that the first edition (commit e931d86) computed for these files
FIRST_STEPS = {
    'corpus': {'inputs': {'science': 0}, 'done': True},
    'tokenizer': {'inputs': {'corpus': '40c57978ceb78ccc', 'vocab_size': 800}, 'done': True},
    'tokens': {'inputs': {'corpus': '40c57978ceb78ccc', 'tokenizer': 'b80331f26de2b605'},
               'done': True},
    'pretrain': {'inputs': {'tokens': 'f0043d77283f694f', 'size': 'demo', 'seed': 0, 'steps': 5},
                 'done': False},
}


@pytest.fixture
def first_edition(tmp_path):
    "Write by hand a small demo of the first edition that was stopped in its training."
    for name, content in FIRST_FILES.items():
        (tmp_path / 'old' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'old' / name).write_text(content)
    (tmp_path / 'old/steps.json').write_text(json.dumps(FIRST_STEPS, indent=1))
    return tmp_path / 'old'


def test_a_run_that_the_first_edition_left_half_done_is_refused_and_kept(first_edition):
    before, out = everything(first_edition), ['--out', first_edition]
    done = refused(
        'pretrain should have a list of what domain-llm wrote, but got none, as in a run of its '
        'first edition', 'choose another --out', args=['demo', '--steps', 5, *out])
    for step in 'corpus', 'tokenizer', 'tokens':
        assert f'{step}: already done with the same inputs' in done.stdout
    for args in (['demo', '--steps', 5], ['tokenizer', '--vocab-size', 800], ['tokens'],
                 ['pretrain', '--size', 'demo']):
        refused('as in a run of its first edition', args=[*args, *out, '--force'])
    assert everything(first_edition) == before


def test_a_finished_run_of_the_first_edition_is_read_and_scored_with_other_cases(run):
    for path in (run / 'out').rglob('.domain_llm.json'): path.unlink()  # it kept no lists
    before = everything(run / 'out')
    for step in 'tokens', 'report': assert 'already done' in cli(step, '--out', run / 'out').stdout
    assert 'trained GPT-2' in cli('report', '--out', run / 'out').stdout
    refused('as in a run of its first edition',
            args=['evaluate', '--cases', run / 'c.csv', '--out', run / 'out', '--force'])
    refused('should be a file of ours to be replaced', 'move it away',
            args=['report', '--out', run / 'out', '--force'])
    now, steps = everything(run / 'out'), run / 'out/steps.json'
    assert now.pop(steps) and before.pop(steps) and now == before
    shutil.rmtree(run / 'out/figures')
    other = cases(run / 'other.csv')
    assert cli('evaluate', '--cases', other, '--out', run / 'out').returncode == 0
    assert 'other' in cli('report', '--out', run / 'out', '--force').stdout


def everything(folder): return {p: p.read_bytes() for p in Path(folder).rglob('*') if p.is_file()}


@pytest.mark.parametrize('force', [(), ('--force',)], ids=['plain', 'forced'])
def test_papers_where_a_step_would_write_are_refused_and_kept(tmp_path, monkeypatch, force):
    monkeypatch.chdir(tmp_path)
    Path('corpus').mkdir()
    for i in range(60): Path(f'corpus/{i}.txt').write_text(f'paper {i} about rats')
    cases('c.csv')
    papers('p.jsonl')
    before = everything(tmp_path)
    run = ['run', '--corpus', 'corpus', '--cases', 'c.csv', '--minutes', '0.05']
    for step in ['corpus', 'corpus'], run:
        refused('corpus should lie outside corpus', args=[*step, '--out', '.', *force])
        assert everything(tmp_path) == before
    refused('corpus should be free, but got what was not written by domain-llm',
            args=['corpus', 'p.jsonl', '--out', '.', *force])
    assert everything(tmp_path) == before


@pytest.mark.parametrize('force', [(), ('--force',)], ids=['plain', 'forced'])
def test_folders_of_the_user_with_the_names_of_steps_are_refused_and_kept(tmp_path, force):
    out = tmp_path / 'out'
    assert cli('corpus', papers(tmp_path / 'p.jsonl'), '--out', out).returncode == 0
    for step, *more in ['tokenizer', '--vocab-size', 400], ['tokens']:
        (out / step).mkdir()
        (out / step / 'mine.json').write_text('mine')
        refused(f'{step} should be free, but got what was not written by domain-llm',
                args=[step, '--out', out, *force])
        assert (out / step / 'mine.json').read_text() == 'mine'
        shutil.rmtree(out / step)
        assert cli(step, '--out', out, *more).returncode == 0


def test_what_lies_beside_and_inside_a_step_stays(tmp_path):
    out = tmp_path / 'out'
    for name in 'corpus.old', 'corpus.part':
        (out / name).mkdir(parents=True)
        (out / name / 'precious.txt').write_text('mine')
    args = ['corpus', papers(tmp_path / 'p.jsonl'), '--out', out]
    assert cli(*args).returncode == 0
    (out / 'corpus/train/notes.md').write_text('mine')
    refused('but got train/notes.md, which is not on its list', args=[*args, '--force'])
    (out / 'corpus/train/notes.md').rename(out / 'notes.md')
    assert cli(*args, '--force').returncode == 0
    left = sorted(p.name for p in out.iterdir())
    assert left == ['corpus', 'corpus.old', 'corpus.part', 'notes.md', 'steps.json']
    assert len(list(out.rglob('precious.txt'))) == 2
    refused('should lie outside', args=['corpus', out / 'corpus', '--out', out, '--force'])
    assert (out / 'corpus/card.json').exists()


def test_papers_that_hold_the_run_or_lie_in_a_step_are_refused(run):
    before = everything(run)
    for path in '.', 'out', 'out/tokens', 'out/pretrain/model', 'out/evaluate/c', 'out/report.html':
        refused('should lie outside', args=['corpus', run / path, '--out', run / 'out', '--force'])
    for step in 'tokenizer', 'pretrain':
        own = run / 'out' / step
        refused('should lie outside', args=[step, '--from', own, '--out', run / 'out', '--force'])
    assert everything(run) == before


def test_force_removes_what_we_wrote_and_leaves_what_the_desktop_left(run):
    left = run / 'out/tokens/.DS_Store', run / 'out/corpus/train/._data', run / 'out/Thumbs.db'
    for path in left: path.write_bytes(b'x')
    (run / 'out/evaluate/c/._0-a.parquet').write_bytes(b'x')
    for step in 'tokens', 'report':
        assert 'already done' in cli(step, '--out', run / 'out').stdout
        assert cli(step, '--out', run / 'out', '--force').returncode == 0
    assert all(path.read_bytes() == b'x' for path in left)


def test_a_file_with_the_name_of_published_cases_is_refused(run):
    shutil.copy(run / 'c.csv', run / 'brainbench-human.csv')
    refused('should not bear the name of published cases',
            args=['evaluate', '--cases', run / 'brainbench-human.csv', '--out', run / 'out'])


def test_a_second_run_in_a_folder_is_refused_until_the_first_is_killed(run):
    code = ('import sys, time\nfrom domain_llm.app.steps import one_at_a_time\n'
            'with one_at_a_time(sys.argv[1]): print("in", flush=True); time.sleep(60)')
    first = subprocess.Popen([sys.executable, '-c', code, run / 'out'], stdout=subprocess.PIPE)
    assert first.stdout.readline() == b'in\n'
    for args in ['demo', '--steps', 5], ['tokens', '--force']:
        refused('should have one writer at a time', args=[*args, '--out', run / 'out'])
    first.kill()
    first.wait()
    assert cli('tokens', '--out', run / 'out').returncode == 0
    assert not (run / 'out/.run.lock').exists()


@pytest.mark.parametrize('name', ['...csv', '.csv', '..csv', ' .csv'])
def test_cases_whose_name_is_no_folders_name_delete_nothing(run, monkeypatch, name):
    monkeypatch.chdir(run)
    shutil.copy('c.csv', name)
    before = everything(run / 'out')
    refused('becomes that of a folder',
            args=['evaluate', '--cases', f'./{name}', '--out', 'out', '--force'])
    assert everything(run / 'out') == before


def test_a_file_that_the_desktop_left_in_a_run_does_no_harm(run):
    (run / 'out/evaluate/.DS_Store').write_bytes(b'x')
    assert cli('report', '--out', run / 'out', '--force').returncode == 0


ODD = {
    'steps.json': ['[]', '{"pretrain": 1}', '{"pretrain": {"inputs": [], "done": true}}',
                   '[' * 10**5],
    'tokens/meta.json': ['[]', '{', '{}', '{"splits": {"train": {"shards": [1]}}}'],
    'pretrain/config.json': ['[]', '{}', '{"train": 1, "model": {}}', '{"train": {}, "model": {}}'],
    'pretrain/log.jsonl': ['{"loss": 1}\n{"step": 0}\n', '[]\n[]\n', '{"step": 0, "loss": "x"}\n',
                           '\udcff\udcfe\n{"step": 0}\n', '{"step": 0}\n'],
    'pretrain/model/config.json': ['[]', '{"n_layer": 10000}', '[' * 10**5],
    'corpus/card.json': ['[]', '{'],
    'evaluate/c/2-trained-GPT-2.parquet': ['PAR1', None],
}


@pytest.mark.parametrize('name', ODD)
def test_an_odd_file_of_a_run_is_a_sentence(run, name):
    for content in ODD[name]:
        path = run / 'out' / name
        if content is None: path.unlink()
        else: path.write_bytes(content.encode('utf-8', 'surrogateescape'))
        refused('should', args=['report', '--out', run / 'out', '--force'])


def test_a_card_with_words_for_numbers_is_reported_as_it_is(run):
    path = run / 'out/corpus/card.json'
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, 'words': 'many', 'licences': {'x': 'y'}}))
    assert cli('report', '--out', run / 'out', '--force').returncode == 0
    assert 'many' in (run / 'out/report.html').read_text()


def test_a_name_with_terminal_codes_is_shown_and_not_sent(tmp_path):
    for name in '\x1b[31mred\x1b]0;pwn\x07.txt', '\udcff.txt', 'x\u202egnp.txt':
        (tmp_path / name).touch()
    papers(tmp_path / 'p.jsonl', 20)
    done = cli('corpus', tmp_path, '--out', tmp_path.parent / 'run-of-names')
    assert done.returncode == 0 and '\u241b[31mred' in done.stdout, done.stderr
    absent = tmp_path / 'no\x1b[2J.txt'
    missing = refused('\u241b', args=['corpus', absent, '--out', tmp_path / 'o'])
    for said in done.stdout, missing.stderr: assert not {'\x1b', '\x07', '\u202e'} & set(said)


def test_an_out_that_is_a_file_is_refused(tmp_path):
    (tmp_path / 'file').write_text('x')
    refused('file', args=['demo', '--out', tmp_path / 'file'])


@pytest.mark.parametrize('given, wanted', [
    ({}, '1000 None'), (dict(GOMP_SPINCOUNT='7'), '7 None'),
    (dict(OMP_WAIT_POLICY='ACTIVE'), 'None ACTIVE')])
def test_threads_wait_as_is_best_beside_others_unless_the_user_has_set_it(given, wanted):
    code = ('import os, sys\nfrom domain_llm.app.cli import main\n'
            'try: main(["--help"])\nexcept SystemExit: pass\n'
            'assert "torch" not in sys.modules\n'
            'print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"))')
    env = {k: v for k, v in ENV.items() if k not in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')} | given
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == wanted, done.stderr


def small_demo(out, how=None, at=None):
    "Give the demo's command on a small literature, and in step `at` send it the signal `how`."
    papers, cases, update = SyntheticScience.papers, SyntheticScience.cases, Trainer.update
    def few(self): return cases(self)[:20]
    def asked(self, batch, step):
        if step == at: os.kill(os.getpid(), how)
        return update(self, batch, step)
    SyntheticScience.papers = partialmethod(papers, n=600)
    SyntheticScience.cases = few
    Trainer.update = asked
    SIZES['demo'] |= dict(tokens_per_step=512)
    os.environ.update(OMP_NUM_THREADS='1')
    main(['demo', '--steps', '20', '--out', str(out)])


def logged(out):
    "Read which steps of a training are in its log."
    log = out / 'pretrain/log.jsonl'
    lines = map(json.loads, log.read_text().splitlines()) if log.exists() else []
    return [line['step'] for line in lines if 'lr' in line]


def test_a_demo_that_is_stopped_three_times_is_resumed_by_the_same_command(tmp_path):
    out, alone, said = tmp_path / 'out', tmp_path / 'alone', tmp_path / 'said'
    for how, step in ((signal.SIGINT, 3), (signal.SIGKILL, 8), (signal.SIGTERM, 13)):
        process = fork(said_into, said, small_demo, out, how, step)
        process.join(300)
        assert not (out / 'pretrain/model').exists()
        if how == signal.SIGKILL:
            assert process.exitcode == -how
            continue
        assert process.exitcode == 1 and 'stopped' in said.read_text()
        assert 'Traceback' not in said.read_text()
    for folder in alone, out:  # one that nobody stops, and then the other's last life
        process = fork(said_into, said, small_demo, folder)
        process.join(300)
        assert process.exitcode == 0, said.read_text()
    assert 'corpus: already done' in said.read_text() and 'resuming at step' in said.read_text()
    model = 'pretrain/model/model.safetensors'
    weights = [(folder / model).read_bytes() for folder in (out, alone)]
    assert weights[0] == weights[1] and logged(out) == list(range(20))


@pytest.fixture
def small_disk(tmp_path):
    "Mount a file system of 3 MB, where the machine lets us make one."
    folder = tmp_path / 'disk'
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', folder]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip('cannot mount a small file system here')
    yield folder
    subprocess.run(['umount', '-l', folder])


@pytest.mark.parametrize('left', [0, 300, 700, 1500, 2200])
def test_a_full_disk_is_a_sentence_and_keeps_what_was_there(small_disk, finished, left):
    "Fill the disk up at another step of the run, for each number of kilobytes left."
    (small_disk / 'filler').write_bytes(b'x' * (3_000_000 - 1000 * left))
    refused('the disk is full', args=[
        'run', '--corpus', finished / 'p.jsonl', '--cases', finished / 'c.csv', '--size', 'demo',
        '--minutes', '0.01', '--out', small_disk / 'out'])
    (small_disk / 'filler').unlink()
    left = [p.name for p in (small_disk / 'out').rglob('*.part')]
    # tokens go on where they stopped
    assert not [name for name in left if not name.startswith('.tokens.')], left


# near copies, workers, and papers from the network

def card(out):
    return json.loads((out / 'corpus/card.json').read_text())


def test_near_copies_are_dropped_where_asked_and_make_another_corpus(tmp_path):
    one = ('Sleep spindles in the thalamus rose after learning and the rise predicted which rats '
           'remembered the maze.')
    texts = [one, one.replace('maze', 'path'),
             'Grid cells kept their spacing in darkness although others drifted.']
    (tmp_path / 'p.jsonl').write_text('\n'.join(json.dumps(dict(text=t)) for t in texts))
    args = ['corpus', tmp_path / 'p.jsonl', '--out']
    assert cli(*args, tmp_path / 'all').returncode == 0 and card(tmp_path / 'all')['documents'] == 3
    done = cli(*args, tmp_path / 'near', '--near', 0.6, '--workers', 2)
    assert done.returncode == 0, done.stderr
    assert card(tmp_path / 'near')['documents'] == 2
    assert card(tmp_path / 'near')['dropped'] == {'near copy': 1}
    assert 'already done' in cli(*args, tmp_path / 'near', '--near', 0.6, '--workers', 0).stdout
    refused('near 0.6 there, None here', args=[*args, tmp_path / 'near'])
    refused("Invalid value for '--near'", code=2, args=[*args, tmp_path / 'bad', '--near', 2])
    refused('`workers` should be 0 or more', args=[*args, tmp_path / 'bad', '--workers', -1])


def test_cases_of_any_length_and_script_are_kept_out_and_all_that_is_dropped_is_listed(tmp_path):
    short = 'Sleep deprivation impaired recall of the learned maze in aged mice but not young ones'
    chinese = '我们在小鼠海马体区记录了神经元的活动，发现睡眠期间的重放与记忆巩固有关。'
    asked = [(short, f'{short}.', '10.1/one', '2021-03'), (chinese, 'b', '', '2022'),
             ('It rose.', 'It fell.', 'https://doi.org/10.1/X', '')]
    cases(tmp_path / 'c.csv', asked, ('original_abstract', 'incorrect_abstract', 'doi', 'date'))
    rows = [dict(id=f'p{i}', text=f'Paper {i} is about rats.', year=2018 + i) for i in range(6)]
    rows += [dict(id='short', text=f'Before. {short.upper()} after.'), dict(id='zh', text=chinese),
             dict(id='its paper', text='Another text.', doi='10.1/X', pmid=7),
             dict(id='linked', text='A third text.', pmid='7'),
             dict(id='v2', text='The second version.', doi='10.1/y.v2'),
             dict(id='v1', text='The first one.', doi='10.1/y.v1'),
             dict(id='gone', text='Retraction.', kind='retraction')]
    folder = tmp_path / 'papers'
    folder.mkdir()
    (folder / 'a.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    (folder / 'b.txt').write_bytes('na\xefve words'.encode('cp1252'))
    (folder / 'c.pdf').touch()
    out = tmp_path / 'out'
    args = ['corpus', folder, '--cases', tmp_path / 'c.csv', '--out', out]
    done = cli(*args, '--encoding', 'cp1252')
    assert done.returncode == 0, done.stderr
    for words in ('3 texts of cases too short to look for', '1 cases without a date', '1 .pdf',
                  '3 documents of 2021, the year of the oldest case, or younger'):
        assert words in done.stdout, done.stdout
    assert card(out)['dropped'] == {
        'not read: a retraction': 1, 'a paper of the benchmark': 2,
        'shares words with the benchmark': 2, 'older version': 1}
    assert card(out)['passed'] == {'.pdf': 1}
    assert card(out)['checks']['documents without a year'] == 2
    listed = [json.loads(line) for line in (out / 'corpus/dropped.jsonl').read_text().splitlines()]
    assert {row['id']: row['why'] for row in listed} == {
        '': 'a retraction', 'its paper': 'a paper of the benchmark',
        'linked': 'a paper of the benchmark', 'short': 'shares words with the benchmark',
        'zh': 'shares words with the benchmark', 'v1': 'older version'}
    assert all('a.jsonl' in row['file'] for row in listed) and listed[-1]['kept'] == 'v2'
    from datasets import load_from_disk
    kept = [row['text'] for part in load_from_disk(str(out / 'corpus')).values() for row in part]
    assert len(kept) == 8 and 'na\xefve words' in kept
    refused('encoding cp1252 there, None here', args=args)


def test_near_copies_across_the_split_are_told(tmp_path):
    draw = random.Random(0)
    texts = [' '.join(f'w{draw.randrange(3000)}' for _ in range(60)) for _ in range(200)]
    texts += [text.replace('w1', 'w2', 1) for text in texts]
    (tmp_path / 'p.jsonl').write_text('\n'.join(json.dumps(dict(text=t)) for t in texts))
    done = cli('corpus', tmp_path / 'p.jsonl', '--out', tmp_path / 'out')
    told = 'validation documents of which training has most'
    assert card(tmp_path / 'out')['checks'][told] == card(tmp_path / 'out')['splits']['validation']
    assert told in done.stdout
    cli('corpus', tmp_path / 'p.jsonl', '--near', 0.6, '--out', tmp_path / 'near')
    assert told not in card(tmp_path / 'near')['checks']


@pytest.fixture(scope='module')
def network():
    "Serve the E-utilities in miniature."
    from eutils import Server
    server = Server(30)
    yield server
    server.close()


@pytest.mark.parametrize('source', ['pubmed', 'pmc'])
def test_fetched_papers_become_a_corpus_with_its_licences(source, network, tmp_path, monkeypatch):
    from functools import partial
    from domain_llm.text import fetching
    from domain_llm.text.card import licences
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setenv('NCBI_API_KEY', 'secret')
    name = f'fetch_{source}'
    monkeypatch.setattr(fetching, name, partial(getattr(fetching, name), server=network.url))
    words = ('fetch', source, 'cells', '--journal', 'Cell', 'Neuron', '--since', '1990',
             '--until', '2030', '--out', tmp_path / 'papers')
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    assert f'30 records in {tmp_path / "papers"}, by licence: ' in done.stdout
    asked = len(network.log)
    assert cli(*words).returncode == 0
    assert len(network.log) == asked  # complete: nothing is asked again
    done = cli('corpus', tmp_path / 'papers', '--out', tmp_path / 'run')
    assert done.returncode == 0 and card(tmp_path / 'run')['documents'] == 30
    found = licences(tmp_path / 'papers').licence.value_counts().to_dict()
    assert card(tmp_path / 'run')['licences'] == found and 'not recorded' not in found
    refused('`query` or `journal` should', args=['fetch', source, '--out', tmp_path / 'other'])


def test_an_unknown_source_is_a_sentence(tmp_path):
    refused('should be pubmed or pmc', args=['fetch', 'arxiv', 'cells', '--out', tmp_path / 'x'])


def test_the_doctor_tells_a_server_that_refuses_from_none(network, monkeypatch):
    from domain_llm.app.cli import _reachable
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    assert _reachable(network.url) == 'reachable', 'it answers 501, but it answers'
    said = _reachable('http://127.0.0.1:9')
    assert said.startswith('not reachable (') and 'refused' in said and 'retries' not in said


def test_two_case_sets_of_nearly_one_name_keep_their_pictures(run):
    def pictures(): return {path.name for path in (run / 'out/figures').glob('*.png')}
    before = pictures()
    shutil.copytree(run / 'out/evaluate/c', run / 'out/evaluate/c-')
    assert cli('report', '--out', run / 'out', '--force').returncode == 0
    again = {name.replace('.png', '-and-2.png') for name in before if '-c.' in name}
    assert again and pictures() == before | again


@pytest.mark.skipif(os.name == 'nt', reason='links need rights there')
def test_links_are_followed_and_large_files_unpacked_as_was_said(tmp_path):
    import gzip
    (tmp_path / 'in/secret').mkdir(parents=True)
    papers(tmp_path / 'in/p.jsonl', 20)
    (tmp_path / 'in/large.txt.gz').write_bytes(gzip.compress(b'word ' * 10_000))
    (tmp_path / 'passwd').write_text('root and other words')
    (tmp_path / 'in/b.txt').symlink_to(tmp_path / 'passwd')
    done = cli('corpus', tmp_path / 'in', '--out', tmp_path / 'out', '--largest', 9000)
    assert done.returncode == 0 and '1 linked from outside' in done.stdout
    assert 'large.txt.gz (broken: a file should unpack to at most' in done.stdout
    refused('follow_links None there, True here',
            args=['corpus', tmp_path / 'in', '--out', tmp_path / 'out', '--follow-links'])
    done = cli('corpus', tmp_path / 'in', '--out', tmp_path / 'out', '--follow-links', '--force')
    assert done.returncode == 0 and 'Read 22 documents' in done.stdout


# models of any origin, with a run and without

@pytest.fixture
def models(run, monkeypatch):
    "Put two models beside the run and work there: its own as a stranger's, and the stored toy."
    from domain_llm.model.weights import TOY
    shutil.copytree(run / 'out/pretrain/model', run / 'weak')
    shutil.copytree(TOY, run / 'toy')
    monkeypatch.chdir(run)


def who(out='alone', name='accuracy-c.csv'):
    with open(Path(out, 'figures', name), newline='') as file:
        return [row['who'] for row in csv.DictReader(file)]


def test_models_are_scored_without_a_run_and_more_join_later(models):
    done = cli('score', '--model', 'weak', 'toy', '--cases', 'c.csv', '--out', 'alone')
    assert done.returncode == 0, done.stderr
    assert who() == ['weak', 'toy', 'chance'] and 'only toy on 11' in done.stdout
    headings, tables = headings_and_tables(Path('alone/report.html'))
    assert headings[-2:] == ['How were the models asked? (c)', 'What made this page']
    asked = tables['How were the models asked? (c)']
    assert [row[:3] for row in asked] == [['weak', 'default', '<|endoftext|>'],
                                        ['toy', 'default', '<|endoftext|>']]
    before = Path('alone/scores/c/toy.parquet').stat().st_mtime_ns
    done = cli('score', '--model', './toy/', '--protocol', 'paper', '--cases', 'c.csv', '--out',
               'alone')
    assert done.returncode == 0 and who() == ['weak', 'toy', "toy, paper's protocol", 'chance']
    done = cli('score', '--model', 'toy', '--cases', 'c.csv', '--out', 'alone')
    assert 'scores/c/toy.parquet: already done' in done.stdout and len(who()) == 4
    assert Path('alone/scores/c/toy.parquet').stat().st_mtime_ns == before
    assert 'already done' in cli('report', '--out', 'alone').stdout


def test_evaluate_writes_the_same_and_takes_other_models(models):
    from domain_llm.bench.scores import Scores
    done = cli('evaluate', '--cases', 'c.csv', '--model', 'toy', '--out', 'out')
    assert done.returncode == 0 and 'evaluate/c: already done' in done.stdout
    assert who('out') == ['untrained GPT-2', 'token trigram', 'trained GPT-2', 'toy', 'chance']
    assert 'only toy on' in done.stdout
    text = Path('out/report.html').read_text()
    assert 'trained from nothing on the papers' in text and 'Training' in text
    notes = Path('out/steps.json').read_text()
    begun = json.loads(notes)
    begun['pretrain']['inputs'] |= dict(start='toy', lora=8, lora_to='both')
    Path('out/steps.json').write_text(json.dumps(begun))
    assert cli('report', '--out', 'out', '--force').returncode == 0
    text = Path('out/report.html').read_text()
    assert 'trained elsewhere, finetuned on the papers' in text and 'rank 8, both' in text
    Path('out/steps.json').write_text(notes)
    done = cli('score', '--cases', 'c.csv', '--model', 'toy', '--out', 'out')
    assert done.returncode == 0 and 'scores/c/toy.parquet: already done' in done.stdout
    shutil.rmtree('toy')
    shutil.copytree('weak', 'toy')
    refused('--force to replace it', args=['evaluate', '--cases', 'c.csv', '--model', 'toy',
                                           '--out', 'out'])
    done = cli('score', '--cases', 'c.csv', '--model', 'toy', '--out', 'out', '--force')
    assert done.returncode == 0
    own, again = (Scores.load(f'out/{path}.parquet') for path in (
        'evaluate/c/2-trained-GPT-2', 'scores/c/toy'))
    assert (own.frame.original == again.frame.original).all()


@pytest.fixture
def asked(monkeypatch):
    "Stop a scoring at its fourth case; list the cases that are asked."
    from domain_llm.bench import scores
    row, asked = scores._case_row, []
    def stopping(case, *rest):
        asked.append(case.id)
        if len(asked) == 4: raise KeyboardInterrupt
        return row(case, *rest)
    monkeypatch.setattr(scores, '_case_row', stopping)
    return asked


def test_a_scoring_that_is_stopped_goes_on_with_the_case_it_was_at(models, asked):
    args = ['score', '--model', 'weak', 'toy', '--cases', 'c.csv', '--out', 'alone']
    refused('the same command goes on from there', args=args)
    assert cli(*args).returncode == 0
    assert asked == [str(i) for i in [1, 2, 3, 4, *range(4, 21), *range(1, 21)]]


@pytest.fixture
def trio(models):
    "Put two random models of its tokenizer and shape beside the run's own."
    import torch
    from domain_llm.model.fast import GPT2
    from domain_llm.model.weights import load_gpt2, save_model
    from domain_llm.tokens.tokenizer import load_tokenizer
    for seed, name in enumerate(('tuned', 'base')):
        torch.manual_seed(seed)
        save_model(GPT2(load_gpt2('weak').cfg), name, load_tokenizer('weak'))


def test_three_models_are_scored_as_one(trio, asked):
    from domain_llm.bench.scores import Scores
    def score(*more): return ['score', *more, '--cases', 'c.csv', '--out', 'alone']
    args = score('--upscale', 'weak', 'tuned', 'base')
    refused('the same command goes on from there', args=args)
    assert cli(*args).returncode == 0 and who() == ['weak + 1 (tuned - base)', 'chance']
    assert asked == [str(i) for i in [1, 2, 3, 4, *range(4, 21)]]
    assert 'already done' in cli(*args).stdout
    done = cli(*score('--upscale', 'weak', 'base', './base/', '--beta', '0.5', '--model', 'weak'))
    assert done.returncode == 0, done.stderr
    same, own = (Scores.load(f'alone/scores/c/{name}.parquet')
                 for name in ('weak-0.5-base---base', 'weak'))
    assert same.name == 'weak + 0.5 (base - base)'
    assert abs(same.frame.original_nats - own.frame.original_nats).max() < 1e-3
    shutil.rmtree('base')
    shutil.copytree('tuned', 'base')
    refused('--force to replace it', args=args)


@pytest.mark.parametrize('words, more, code', [
    ('weak should have the tokenizer of toy', ['toy', 'weak', 'weak'], 1),
    ('there is no nowhere/at/all', ['weak', 'tuned', 'nowhere/at/all'], 1),
    ("'--upscale' requires 3 arguments", ['weak', 'tuned'], 2)])
def test_what_cannot_be_added_is_a_sentence(trio, words, more, code):
    refused(words, code=code,
            args=['score', '--cases', 'c.csv', '--out', 'alone', '--upscale', *more])
    assert not list(Path('alone').rglob('*.parquet'))


@pytest.mark.parametrize('words, more', [
    ('run `domain-llm fetch-model smollm2` first', ['smollm2']),
    ('there is no nowhere/at/all', ['toy', 'nowhere/at/all']),
    ('should have a name of its own', ['toy', './toy']),
    ("got 'experts'", ['experts']),
    ('config.json should be', ['empty']),
    ('--protocol should be one of default, paper', ['toy', '--protocol', 'harness'])])
def test_what_cannot_be_scored_is_a_sentence_before_anything_is_scored(
        models, monkeypatch, words, more):
    monkeypatch.setenv('DOMAIN_LLM_CACHE', 'nothing')
    shutil.copytree('toy', 'experts')
    Path('empty').mkdir()
    refused(words, args=['score', '--model', *more, '--cases', 'c.csv', '--out', 'alone'])
    assert not list(Path('alone').rglob('*.parquet'))


def test_two_rows_of_one_file_are_refused_and_none_is_lost(models):
    rows = [f'{name},{i},original' for name in ('GPT-4 (mini)', 'GPT-4 mini') for i in range(1, 21)]
    Path('chat.csv').write_text('\n'.join(['model,case,choice', *rows]))
    refused("a name of its own in the tables and for its file of scores, but got 'GPT-4 (mini)'",
            args=['score', '--answers', 'chat.csv', '--cases', 'c.csv', '--out', 'alone'])
    assert not list(Path('alone').rglob('*.parquet'))


@pytest.mark.parametrize('command', [['exam'], ['ask', '--model', 'm'], ['game'],
                                     ['plan', '--primary', 'a,b', '--margin', 5]])
def test_a_second_value_of_an_option_that_takes_one_is_refused(command, tmp_path):
    both = cases(tmp_path / 'one.csv'), cases(tmp_path / 'two.csv')
    refused('unexpected extra argument', code=2,
            args=[*command, '--cases', *both, '--out', tmp_path / 'made'])
    assert not (tmp_path / 'made').exists()


def test_a_date_that_is_none_is_a_sentence(tmp_path):
    refused("a year or a date such as 2015-01-31, but got 'foo'",
            args=['fetch', 'pubmed', 'cells', '--since', 'foo', '--out', tmp_path / 'x'])
