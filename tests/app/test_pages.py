"""The exam and the game as pages, in a real browser: by keys and by mouse, closed and resumed.

One Chromium serves all of it. A made-up field, forty cases about ice, is answered by eight people.
"""
import csv, re, shutil, time
from collections import Counter

import pandas as pd
import pytest

from domain_llm.app import cli
from domain_llm.app.game import Match, Round, reply, rounds, write_game
from domain_llm.bench.scores import Scores
from domain_llm.experts.exam_page import write_exam
from domain_llm.bench.responses import load_responses
from domain_llm.text.synthetic import Case

NAMES = 'chromium', 'chromium-browser', 'google-chrome'
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
DRIVER = shutil.which('chromedriver')
selenium = pytest.importorskip('selenium', reason='needs selenium')
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason='needs Chromium and its driver')

ATTACK = '<img src=x onerror="hacked=1"></script><script>hacked=1</script>'
THINGS = 'valley glacier', 'tidewater glacier', 'ice cap', 'ice shelf', 'rock glacier'
CAUSES = ('warm summers', 'dry winters', 'drained melt water', 'a calved front', 'new dust',
          'fresh snow', 'a deep crevasse', ATTACK)


def ice_cases():
    "Make forty cases in which every second cause makes the ice move faster."
    cases = []
    for thing in THINGS:
        for k, cause in enumerate(CAUSES):
            words = ('faster', 'more slowly') if k % 2 else ('more slowly', 'faster')
            texts = (f'We measured ice. After {cause}, the {thing} moved {word}. We were cold.'
                     for word in words)
            cases.append(Case(f'ice, no. "{len(cases) + 1}"', *texts, thing))
    return cases


class Page:
    "Drive a browser as a person does."
    def __init__(self, browser, downloads): self.browser, self.downloads = browser, downloads

    def open(self, path, person, agree=True):
        "Open a page anew, and begin by keys alone."
        from selenium.webdriver import Keys
        self.browser.get('about:blank')
        self.browser.get(path.as_uri())
        agreed = [Keys.TAB, Keys.TAB, Keys.SPACE] if agree else []
        self.keys(person, *agreed, Keys.ENTER)

    def keys(self, *keys):
        "Press keys wherever the focus is."
        from selenium.webdriver import ActionChains
        ActionChains(self.browser, duration=0).send_keys(*keys).perform()

    def get(self, name): return self.browser.find_element('id', name)

    def text(self, name): return self.get(name).text

    def shown(self):
        "Read where one is, and the two versions."
        return self.browser.execute_script(
            "return ['#where', '.version .text', '.version:last-child .text']"
            ".map(what => document.querySelector(what).innerText)")

    def width(self, pixels):
        "Measure how far the page sticks out at a width."
        size = dict(width=pixels, height=900, deviceScaleFactor=1, mobile=False)
        self.browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
        out = 'return document.documentElement.scrollWidth - innerWidth'
        return self.browser.execute_script(out)

    def download(self, link='csv'):
        "Take the answers along by the Enter key."
        before = set(self.downloads.iterdir())
        self.browser.execute_script('arguments[0].focus()', self.get(link))
        from selenium.webdriver import Keys
        self.keys(Keys.ENTER)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            new = [p for p in set(self.downloads.iterdir()) - before
                   if p.suffix != '.crdownload' and p.stat().st_size]  # it begins empty
            if new: return new[0]
            time.sleep(0.05)
        raise AssertionError('nothing was downloaded')


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    "Start one browser, whose downloads land in a folder."
    from selenium import webdriver
    home = tmp_path_factory.mktemp('pages')
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ('headless=new', 'no-sandbox', 'disable-gpu', 'no-first-run', 'disable-sync',
                 'disable-background-networking', 'disable-component-update',
                 'window-size=1280,900', f'user-data-dir={home}/browser'):
        options.add_argument(f'--{flag}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    (home / 'downloads').mkdir()
    try:
        browser.execute_cdp_cmd('Browser.setDownloadBehavior', dict(
            behavior='allow', downloadPath=str(home / 'downloads')))
        yield Page(browser, home / 'downloads')
    finally: browser.quit()


@pytest.fixture(scope='module')
def exam(tmp_path_factory):
    "Write an exam of the forty cases, nine and a check for each person."
    folder = tmp_path_factory.mktemp('exam')
    write_exam(folder / 'exam.html', ice_cases(), f'Ice {ATTACK}', per_person=9, checks=1)
    return folder / 'exam.html'


def answer(page, where, wrong=False, sure=5):
    "Answer the case that is shown by keys alone, from the heading on; give what was chosen."
    from selenium.webdriver import Keys
    at, first, second = page.shown()
    assert at == where
    rises = any(f'After {cause},' in first for cause in CAUSES[1::2])
    real = 1 if ('faster' in first) == rises or '«this»' in first else 2
    if '«this»' in second: real = 2
    choice = 3 - real if wrong and '«this»' not in first + second else real
    up = [Keys.ARROW_RIGHT] * sure
    page.keys(str(choice), Keys.TAB, *up, Keys.TAB, *up[:3], Keys.ENTER)
    return (first, second)[choice - 1]


@pytest.fixture(scope='module')
def responses(page, exam):
    "Let eight people answer; the third closes the page half way and comes back."
    seen, files = {}, []
    for n in range(1, 9):
        person = f'Kyoto-{n}'
        page.open(exam, person)
        for i in range(10):
            if (n, i) == (3, 4): page.open(exam, person)
            chosen = answer(page, f'Case {i + 1} of 10', i % 4 == 3, i % 3 + 1)
            seen.setdefault(n, []).append(chosen)
        assert page.text('end').startswith('Thank you')
        files.append(page.download())
        assert files[-1].read_text() == page.get('text').get_property('value')
    return seen, files


def test_eight_people_answer_an_exam_by_keys_and_their_files_meet_the_key(exam, responses, page):
    seen, files = responses
    assert sorted(f.name for f in files) == [f'responses-kyoto-{n}.csv' for n in range(1, 9)]
    table = pd.concat(pd.read_csv(f, keep_default_na=False) for f in files)
    assert list(table) == ['exam', 'person', 'case', 'choice', 'confidence', 'expertise', 'known',
                           'position', 'seconds']
    key = pd.read_csv(exam.with_suffix('.key.csv'))
    place = table.groupby('person').cumcount()
    assert (table.confidence == 51 + place % 3).all() and not table.known.any()
    chosen = ['exam', 'case', 'choice']
    right = table.merge(key.rename(columns=dict(version='choice')), on=chosen)
    assert len(right) == len(table) == 80
    is_check = right.case.str.startswith('attention-')
    place = right.groupby('person').cumcount()
    assert (right.original == (is_check | (place % 4 != 3))).all()
    checks = table[table.case.str.startswith('attention-')]
    assert checks.person.nunique() == len(checks) == 8
    asked = Counter(table.case) - Counter(checks.case)
    assert len(asked) == 40 and set(asked.values()) == {1, 2}    # nine cases of eight people
    counted = load_responses(files, ice_cases(), exam.with_suffix('.key.csv'))
    assert len(counted) == 72 and counted.person.nunique() == 8 and not counted.attrs['left_out']
    assert counted.correct.sum() == right.original[~is_check].sum()
    texts = {c.id: {c.original, c.altered} for c in ice_cases()}
    for n, rows in table.groupby('person'):
        own = [c for c in rows.case if c in texts]
        assert len(set(own)) == 9
        for case, text in zip(rows.case, seen[int(n[-1])]):
            if case in texts:
                assert any(text.replace('«', '').replace('»', '') in t for t in texts[case])


def test_their_files_become_a_report_that_begins_with_the_verdict(exam, responses, tmp_path):
    cases, experts = ice_cases(), tmp_path / 'answers'
    table = pd.DataFrame([vars(c) for c in cases]).rename(columns=dict(
        original='original_abstract', altered='incorrect_abstract', section='journal_section'))
    table.to_csv(tmp_path / 'ice.csv', index=False)
    experts.mkdir()
    for file in responses[1]: shutil.copy(file, experts)
    shutil.copy(exam.with_suffix('.key.csv'), tmp_path)
    said = ['original' if i % 10 else 'altered' for i in range(len(cases))]
    asked = pd.DataFrame(dict(model='a chat', case=[c.id for c in cases], choice=said))
    asked.to_csv(tmp_path / 'chat.csv', index=False)
    cli.plan(out=tmp_path / 'out', primary='a chat,experts', margin=20)
    cli.score(answers=[str(tmp_path / 'chat.csv')], experts=[str(experts)],
              cases=[str(tmp_path / 'ice.csv')], out=tmp_path / 'out')
    text = re.sub('<[^>]*>', ' ', (tmp_path / 'out/report.html').read_text('utf-8'))
    first = ' '.join(text[text.index('What was found'):].split())[:600]
    assert re.search(r'a chat .* the experts .*margin .* could not have been seen', first), first


def test_orders_and_sides_are_the_persons_own_and_the_page_knows_no_answer(exam, responses, page):
    first = ['faster' in texts[0] for texts in responses[0].values()]
    assert len(set(first)) == 2
    sides = page.browser.execute_script(
        """return [...Array(200).keys()].map(i => orderFor(`p${i}`))
           .map(rounds => rounds.map(r => [r.one.id, r.sides[0]]))""")
    assert sides == page.browser.execute_script(
        """return [...Array(200).keys()].map(i => orderFor(`p${i}`))
           .map(rounds => rounds.map(r => [r.one.id, r.sides[0]]))""")
    assert len({str(rounds) for rounds in sides}) == 200
    swapped = [side for rounds in sides for _, side in rounds]
    assert 0.45 < sum(swapped) / len(swapped) < 0.55
    firsts = Counter(rounds[0][0] for rounds in sides)
    assert max(firsts.values()) < 20 and not any('attention' in case for case in firsts)
    with open(exam.with_suffix('.key.csv')) as file:
        names = [row['version'] for row in csv.DictReader(file) if row['original'] == 'true']
    text = exam.read_text()
    ahead = [text.index(f'"{name}"') for name in names]
    pairs = page.browser.execute_script('return data.cases.map(c => c.versions)')
    assert 0.2 < sum(pair[0] in names for pair in pairs) / 40 < 0.8 and len(ahead) == 41


def test_no_text_of_a_case_becomes_markup_or_runs(exam, responses, page):
    assert page.browser.execute_script('return typeof hacked') == 'undefined'
    page.open(exam, 'no-number')
    assert page.browser.find_element('tag name', 'h1').text == f'Ice {ATTACK}'
    assert not page.browser.find_elements('css selector', 'main img')
    assert page.browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'hacked = 1';"
        "document.body.append(s); return typeof hacked") == 'undefined'  # only one script may run
    said = [line['message'] for line in page.browser.get_log('browser')]
    assert all('Content Security Policy' in line for line in said) and len(said) == 1


def test_a_mouse_does_and_a_pause_takes_no_time(exam, page):
    page.open(exam, 'mouse-1')
    page.browser.execute_script('let t = 0; performance.now = () => t; clock.since = 0;'
                                'window.pass = s => t += 1000 * s')
    page.browser.execute_script('pass(5)')
    page.get('pause').click()
    page.browser.execute_script('pass(100)')
    assert '0 of 10 answered' in page.text('kept') and not page.get('round').is_displayed()
    page.get('resume').click()
    page.browser.execute_script('pass(2)')
    page.get('answer').click()
    assert page.text('refused') == 'Choose version 1 or version 2 first.'
    page.browser.find_elements('class name', 'version')[1].click()
    page.get('answer').click()
    assert page.text('refused') == 'Set this first: How sure are you?'
    page.get('confidence').click()
    page.get('expertise').click()
    page.get('known').click()
    page.get('answer').click()
    assert page.text('where') == 'Case 2 of 10'
    page.get('pause').click()
    page.get('stop').click()
    row = next(csv.DictReader([*page.get('text').get_property('value').splitlines()]))
    assert row['known'] == 'true' and row['seconds'] == '7' and 45 < int(row['confidence']) < 55


def test_a_browser_that_keeps_nothing_is_said_and_the_answers_are_still_there(exam, page):
    no_store = ("Object.defineProperty(window, 'localStorage', "
                "{get() { throw new DOMException('no', 'SecurityError') }})")
    added = page.browser.execute_cdp_cmd('Page.addScriptToEvaluateOnNewDocument',
                                         dict(source=no_store))
    try:
        page.open(exam, 'kyoto-9')
        assert page.get('unsaved').is_displayed() and 'does not keep' in page.text('unsaved')
        answer(page, 'Case 1 of 10')
        assert page.text('where') == 'Case 2 of 10'
        page.get('pause').click()
        assert 'only as long as this page is open' in page.text('kept')
        page.get('stop').click()
        assert len(page.get('text').get_property('value').splitlines()) == 2
    finally:
        page.browser.execute_cdp_cmd('Page.removeScriptToEvaluateOnNewDocument', added)
    page.open(exam, 'kyoto-9')
    assert not page.get('unsaved').is_displayed() and page.text('where') == 'Case 1 of 10'


def test_it_fits_a_phone_and_says_what_everything_is(exam, page):
    page.open(exam, 'kyoto-10')
    try: assert [page.width(w) for w in (360, 768, 1280) if page.width(w) > 0] == []
    finally: page.browser.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
    shown = page.browser.find_elements('css selector', 'input, button, select, summary, progress')
    shown = [e for e in shown if e.is_displayed()]
    assert len(shown) == 9 and all(e.accessible_name for e in shown)
    radio = page.browser.find_element('css selector', '[name=version]')
    assert radio.aria_role == 'radio' and page.shown()[1] in radio.accessible_name
    assert page.browser.switch_to.active_element.text == 'Case 1 of 10'   # where a reader begins
    assert page.get('refused').get_attribute('role') == 'alert'


# ---- the game

@pytest.fixture(scope='module')
def game(tmp_path_factory):
    "Write a game of ten rounds about ice, with a model, two people, clues and a drawing."
    cases = ice_cases()[:20]
    right = [i % 3 > 0 for i in range(20)]
    frame = pd.DataFrame(dict(id=[c.id for c in cases], section='', original=1.0,
                              altered=[2.0 if r else 0.5 for r in right]))
    people = pd.DataFrame([dict(person=p, case=c.id, correct=p == 'a' or i % 2 == 0,
                                confidence=60)
                           for i, c in enumerate(cases) for p in 'ab'])

    class Drawn:
        def _repr_html_(self): return '<p>drawn</p>'
    match = Match(cases, Scores('a model', frame), people, 'two people', xray=lambda case: Drawn(),
                  clues=lambda case: [f'clue {k}: {ATTACK}' for k in (1, 2, 3)])
    shown = rounds(cases, 10, seed=4)
    path = write_game(tmp_path_factory.mktemp('game') / 'game.html', match, shown)
    return path, match, shown


@pytest.mark.parametrize('way', ['keys', 'mouse'])
def test_ten_rounds_are_played_as_a_page(game, page, way):
    from selenium.webdriver import Keys
    path, match, shown = game
    by_id = {r.case.id: r.case for r in shown}
    page.open(path, way, agree=False)
    tally = [0, 0, 0.0]
    for i in range(10):
        at, first, second = page.shown()
        assert at == f'Case {i + 1} of 10'
        choice = 1 + i % 2
        if way == 'keys': page.keys(str(choice), Keys.TAB, Keys.ARROW_RIGHT, Keys.ENTER)
        else:
            for what in page.browser.find_elements('class name', 'version')[choice - 1], \
                    page.get('confidence'), page.get('answer'): what.click()
        told, score, cards = page.browser.execute_script(
            "return ['#told', '#score', '#clues ol'].map(w => document.querySelector(w).innerText)")
        text = (first, second)[choice - 1].replace('«', '').replace('»', '')
        case = next(c for c in by_id.values() if text in c.original or text in c.altered)
        real = choice if text in case.original else 3 - choice
        lines = [line for line in told.splitlines() if line.strip()]
        assert lines == [*reply(match, Round(case, real), choice), 'drawn']
        row = match.model.frame.set_index('id').loc[case.id]
        share = match.people[match.people.case == case.id].correct.mean()
        tally = [n + more for n, more in zip(tally, (choice == real, row.correct, share))]
        assert score == (f'You {tally[0]} of {i + 1}, a model {tally[1]} of {i + 1}, '
                         f'two people {tally[2]:.1f} of {i + 1} on average.')
        assert cards.splitlines() == [f'clue {k}: {ATTACK}' for k in (1, 2, 3)]
        if way == 'keys': page.keys(Keys.ENTER)
        else: page.get('answer').click()
    assert page.text('result') == score
    assert score in page.get('picture').accessible_name
    drawn = page.download('png')
    assert drawn.name == f'game-{way}.png' and drawn.read_bytes().startswith(b'\x89PNG')
    table = load_responses(page.download())
    assert table.correct.sum() == tally[0] and set(table.case) == set(by_id)
    assert page.browser.execute_script('return typeof hacked') == 'undefined'
