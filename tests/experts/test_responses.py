"""Eight experts of a made-up field: from their cases to a report, by the exam's page and key."""
import csv
import json
import random
import re

import numpy as np
import pandas as pd
import pytest

from domain_llm.app import cli
from domain_llm.bench.cases import load_cases
from domain_llm.experts.exam_page import COLUMNS, deal_cases, write_exam
from domain_llm.bench.responses import load_responses

BREAD = 'sourdough', 'rye', 'brioche', 'focaccia', 'bagel'
STEPS = ('a cold night', 'more salt', 'a wet dough', 'a long rest', 'old yeast', 'a hot stone',
         'fine flour', 'a second fold')


def write_cases(path):
    "Write forty cases of a baker's science: every second step makes a loaf rise."
    with open(path, 'w', newline='') as file:
        rows = csv.writer(file)
        rows.writerow(['id', 'original_abstract', 'incorrect_abstract', 'journal_section'])
        for i in range(40):
            bread, step = BREAD[i // 8], STEPS[i % 8]
            both = [f'We baked {bread} twice. After {step}, it {what}. Both loaves agreed.'
                    for what in (('rose', 'sank') if i % 2 else ('sank', 'rose'))]
            rows.writerow([f'bake {i:02}', *both, bread])
    return load_cases(path)


def answer(home, cases, per_person=9, people=8):
    "Let made-up bakers answer their hands of the exam, and send a file each, as the page does."
    key = pd.read_csv(home / 'exam.key.csv', dtype=str)
    right = key[key.original == 'true'].set_index('case').version
    wrong = key[key.original == 'false'].set_index('case').version
    folder, rng = home / 'answers', random.Random(1)
    folder.mkdir()
    for person, hand in zip(range(1, people + 1), deal_cases(len(cases), per_person)):
        rows = []
        for case in [*(cases[i].id for i in hand), 'attention-1']:
            knows = rng.random() < 0.7 or (case == 'attention-1' and person != 3)
            rows.append((key.exam[0], f'lyon-{person}', case, (right if knows else wrong)[case],
                         rng.randrange(101), 70, 'true' if rng.random() < 0.1 else 'false',
                         'Other', rng.randrange(10, 90)))
        if person == 3: rows[-1] = (*rows[-1][:3], wrong['attention-1'], *rows[-1][4:])
        pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / f'responses-{person}.csv', index=False)
    return folder


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "Make the field's cases, its exam and eight files of responses."
    home = tmp_path_factory.mktemp('bakery')
    cases = write_cases(home / 'bakes.csv')
    write_exam(home / 'exam.html', cases, 'Bread', per_person=9, checks=1)
    answer(home, cases)
    return home


def test_eight_files_and_a_key_become_one_table(home, capsys):
    cases = load_cases(home / 'bakes.csv')
    rows = load_responses(home / 'answers', cases)
    left_out = {row['left out because']: row for row in rows.attrs['left_out']}
    failed = left_out['the person failed an attention check']
    assert (failed['people'], failed['answers']) == (1, 9)
    known = left_out['the person knew the study']['answers']
    assert len(rows) == 72 - 9 - known and known > 0
    assert 'note: 9 answers of 1 people are left out' in capsys.readouterr().out
    # by hand
    raw = pd.concat(pd.read_csv(file, dtype=str) for file in (home / 'answers').iterdir())
    key = pd.read_csv(home / 'exam.key.csv', dtype=str)
    read = raw.merge(key, left_on=['case', 'choice'], right_on=['case', 'version'])
    read = read[(read.person != 'lyon-3') & (read.known == 'false')
                & ~read.case.str.startswith('attention-')]
    assert rows.correct.sum() == (read.original == 'true').sum() and len(read) == len(rows)
    assert rows.person.nunique() == 7 and set(rows.section) == set(BREAD)
    assert rows.seconds.between(10, 90).all() and rows.confidence.notna().all()
    everybody = load_responses(home / 'answers', cases, rules={})
    assert len(everybody) == 72 and everybody.failed_checks.sum() == 9


def test_the_reports_first_sentence_is_the_verdict(home, monkeypatch):
    monkeypatch.chdir(home)
    rng = np.random.default_rng(0)
    chat = pd.DataFrame(dict(model='chat', case=[f'bake {i:02}' for i in range(40)],
                             choice=np.where(rng.random(40) < 0.8, 'original', 'altered')))
    chat.to_csv('chat.csv', index=False)
    cli.score(answers=['chat.csv'], experts=['answers'], cases=['bakes.csv'], out=home / 'out')
    page = (home / 'out' / 'report.html').read_text('utf-8')
    text = ' '.join(re.sub('<[^>]*>', ' ', page[page.index('<h2'):]).split())
    first = re.match(r'.*?\) (.*?\.) [A-Z]?[a-z]', text)[1]
    assert re.search(r'chat is within [\d.]+ points of the experts', first)
    assert 'of less than' in first and 'could not have been seen reliably' in first
    for words in ('7 people answered', 'failed an attention check', 'chat was asked',
                  'Does it know when it knows?'):
        assert words in text
    # fewer files, several words after one option
    with pytest.raises(SystemExit) as left:
        cli.main(['report', '--out', 'out', '--experts', 'answers/responses-1.csv',
                  'answers/responses-2.csv'])
    assert not left.value.code
    assert '2 people answered' in (home / 'out' / 'report.html').read_text('utf-8')
    with pytest.raises(ValueError, match='should name what to score'):
        cli.score(cases=['bakes.csv'], out=home / 'out')
    cli.ask(cases='bakes.csv', model='m', out=home / 'questions.jsonl')
    assert len((home / 'questions.jsonl').read_text().splitlines()) == 80


def test_a_model_that_refuses_everything_is_in_the_report(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.ask(cases=home / 'bakes.csv', model='m', out=tmp_path / 'questions.jsonl')
    body = dict(model='talker', choices=[dict(message=dict(content='I cannot say.'))])
    lines = [json.dumps(dict(custom_id=json.loads(line)['custom_id'], response=dict(body=body)))
             for line in (tmp_path / 'questions.jsonl').read_text().splitlines()]
    (tmp_path / 'answers.jsonl').write_text('\n'.join(lines))
    with pytest.raises(SystemExit) as left:
        cli.main(['score', '--answers', 'answers.jsonl', '--cases', str(home / 'bakes.csv'),
                  '--out', 'out'])
    assert not left.value.code, capsys.readouterr()
    page = (tmp_path / 'out' / 'report.html').read_text('utf-8')
    assert 'talker was asked and gave no answer to 40 of 40 cases.' in page


@pytest.mark.parametrize('people, cases', [(1, 40), (8, 1), (2, 2), (2, 3)])
def test_one_expert_or_one_case_is_told_and_breaks_nothing(home, tmp_path, people, cases):
    from domain_llm.experts.report import evaluation_sections, write_report
    from small_worlds import made_up
    asked = load_cases(home / 'bakes.csv')[:cases]
    rows = ['person,case,choice'] + [
        f'p{p},{c.id},{"original" if (p + i) % 3 else "altered"}'
        for p in range(people) for i, c in enumerate(asked)]
    (tmp_path / 'r.csv').write_text('\n'.join(rows))
    responses = load_responses(tmp_path / 'r.csv', asked)
    model = made_up('m', np.arange(cases) % 4 > 0, [c.id for c in asked])
    sections = evaluation_sections(model, responses)
    write_report(tmp_path / 'r.html', 'Few', sections)
    said = sections[0][1]
    assert ('cannot be said' in said) == (min(people, cases) < 2), said
    assert [heading for heading, *_ in sections][-1] == 'Who answered'
