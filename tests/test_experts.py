"""What lesson 08 cannot show in a cell: the published tables in full, properties, crashes while writing, a real browser."""
import os, re, shutil, signal, subprocess, sys, textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from lxml import html as reader
from scipy import stats

from domain_llm import experts as ex
from domain_llm.brainbench import Scores, wilson_interval

DATA = os.environ.get('DOMAIN_LLM_DATA')
needs_data = pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')
CHROMIUM = next((c for c in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')) if c), None)
needs_browser = pytest.mark.skipif(not CHROMIUM, reason='needs Chromium')


def made_up(name, correct, ids=None):
    correct = np.asarray(correct, bool)
    original = np.full(len(correct), 30.)
    frame = pd.DataFrame(dict(id=ids or [str(i) for i in range(len(correct))], section='', original=original, altered=original + np.where(correct, 1, -1), correct=correct))
    return Scores(name, frame, {})


def published(model):
    folder = Path(DATA) / 'published' / model
    pair, label = np.load(folder / 'PPL_A_and_B.npy'), np.load(folder / 'labels.npy')
    original, altered = (np.take_along_axis(pair, i[:, None], 1)[:, 0] for i in (label, 1 - label))
    return Scores(model, pd.DataFrame(dict(id=[str(i + 1) for i in range(len(pair))], section='', original=original, altered=altered, correct=original < altered)), {})


# the published numbers: paper_system 2.1, 2.5, 2.7

@pytest.fixture(scope='module')
def answers(): return ex.load_participants(Path(DATA) / 'brainbench')


@needs_data
def test_participants_agree_with_the_raw_file(answers):
    raw = pd.read_csv(Path(DATA) / 'brainbench' / 'participant_data.csv')
    assert answers.shape == (1514, 8) and answers.notna().all(axis=None)
    assert (answers.correct.to_numpy() == raw.correct.to_numpy()).all()
    rebuilt = answers.maker.map(dict(human='human', gpt4='machine')) + '_' + answers.section
    assert (rebuilt == raw.journal_section).all() and (answers.case.astype(float) == raw.abstract_id).all()
    cases = pd.read_csv(Path(DATA) / 'brainbench' / 'BrainBench_Human_v0.1.csv')
    human = answers[answers.maker == 'human']
    assert (cases.journal_section.to_numpy()[human.case.astype(int) - 1] == human.section).all()      # case 1 is the first row


@needs_data
@pytest.mark.parametrize('maker,k,n', [('human', 641, 1011), ('gpt4', 351, 503)])
def test_human_accuracy(answers, maker, k, n):
    line = ex.human_accuracy(answers, maker)
    assert (line.k, line.n) == (k, n)
    assert np.allclose(line.interval, stats.binomtest(k, n).proportion_ci(method='wilson'))


@needs_data
@pytest.mark.parametrize('maker,n,accuracy', [('human', 267, .726592), ('gpt4', 140, .735714)])
def test_top_experts(answers, maker, n, accuracy):
    line = ex.human_accuracy(ex.top_experts(answers), maker)
    assert line.n == n and abs(line.accuracy - accuracy) < 5e-7


@needs_data
@pytest.mark.parametrize('maker,section,k,n', [
    ('human', 'Behavioral/Cognitive', 251, 374), ('human', 'Systems/Circuits', 145, 258), ('human', 'Neurobiology of Disease', 73, 118),
    ('human', 'Cellular/Molecular', 87, 134), ('human', 'Development/Plasticity/Repair', 85, 127),
    ('gpt4', 'Behavioral/Cognitive', 134, 191), ('gpt4', 'Systems/Circuits', 91, 128), ('gpt4', 'Neurobiology of Disease', 42, 67),
    ('gpt4', 'Cellular/Molecular', 44, 63), ('gpt4', 'Development/Plasticity/Repair', 40, 54)])
def test_subfields(answers, maker, section, k, n):
    line = ex.human_accuracy(answers[answers.section == section], maker)
    assert (line.k, line.n) == (k, n)


@needs_data
@pytest.mark.parametrize('model,k,z,p', [
    ('gpt2_init', 92, -4.6006, 4e-6), ('gpt2', 115, -1.5748, .1153), ('gpt2_scratch', 116, -1.4421, .1493), ('finetune_gpt2', 127, .0261, .9791),
    ('finetune_gpt2_lr2e-6', 123, -.5095, .6104), ('gpt2_scratch_neuro_tokenizer', 125, -.2419, .8089), ('gpt2_scratch_neuro_tokenizer_spt', 129, .2947, .7682),
    ('gpt2-medium_scratch_neuro_tokenizer', 127, .0261, .9791), ('gpt2-medium_scratch_neuro_tokenizer_spt', 132, .6985, .4849),
    ('gpt2-large_scratch_neuro_tokenizer', 144, 2.3264, .0200), ('gpt2-medium', 131, .5638, .5729), ('gpt2-large', 139, 1.6456, .0998)])
def test_models_against_the_experts(answers, model, k, z, p):
    scores, line = published(model), ex.human_accuracy(answers)
    row = ex.summary_table([scores], line).iloc[0]
    assert (row.who, row.correct, row.n) == (model, k, 200)
    assert np.allclose(ex.two_proportions(ex.Line(model, k, 200), line), (z, p), atol=6e-5)
    words = {True: 'cannot tell it from the experts'}.get(p >= .05, 'above the experts' if z > 0 else 'below the experts')
    assert words in ex.verdict(scores, line)
    assert ('cannot tell it from guessing' in ex.verdict(scores)) == (model == 'gpt2_init')


@needs_data
@pytest.mark.parametrize('a,b,only_a,only_b,p', [
    ('gpt2_scratch', 'gpt2_scratch_neuro_tokenizer', 18, 27, .2327), ('gpt2', 'gpt2_scratch_neuro_tokenizer', 26, 36, .2529),
    ('gpt2_scratch', 'finetune_gpt2', 23, 34, .1849), ('gpt2', 'finetune_gpt2', 5, 17, .0169),
    ('gpt2_scratch_neuro_tokenizer', 'gpt2-large_scratch_neuro_tokenizer', 15, 34, .0094), ('gpt2-medium_scratch_neuro_tokenizer', 'gpt2-large_scratch_neuro_tokenizer', 6, 23, .0023)])
def test_published_contrasts(a, b, only_a, only_b, p):
    result = ex.compare(published(a), published(b))
    assert (result.only_a, result.only_b) == (only_a, only_b) and abs(result.p - p) < 5e-5
    assert ('cannot decide' in str(result)) == (p >= .05) == ('better' not in str(result))


@needs_data
@pytest.mark.parametrize('model,bins,slope,p', [
    ('gpt2_scratch_neuro_tokenizer', 20, 6.390977e-4, .14474), ('gpt2-medium_scratch_neuro_tokenizer', 20, 1.887218e-3, .016407),
    ('gpt2-medium_scratch_neuro_tokenizer', 10, 1.863636e-3, .051679), ('gpt2-large_scratch_neuro_tokenizer', 20, 1.563910e-3, .035901), ('gpt2', 20, 1.827068e-3, .0072150)])
def test_published_slopes(model, bins, slope, p):
    scores = published(model)
    fit = ex.calibration_slope(abs(scores.margin), scores.correct, bins)
    assert np.isclose(fit.slope, slope, rtol=5e-7) and np.isclose(fit.pvalue, p, rtol=5e-5)


@needs_data
@pytest.mark.parametrize('maker,bins,slope', [('human', 20, 2.744687e-4), ('human', 10, 2.597223e-4), ('gpt4', 20, 5.415742e-4), ('gpt4', 10, 5.175365e-4)])
def test_published_slopes_of_experts(answers, maker, bins, slope):
    rows = answers[answers.maker == maker]
    assert np.isclose(ex.calibration_slope(rows.confidence, rows.correct, bins).slope, slope, rtol=5e-7)


# properties

cases = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=60)


@settings(deadline=None, max_examples=80)
@given(cases, st.integers(1, 25), st.randoms(use_true_random=False))
def test_calibration_ignores_the_order_of_rows(rows, bins, random):
    first = ex.calibration(*zip(*rows), bins=bins)
    random.shuffle(rows)
    assert np.allclose(first, ex.calibration(*zip(*rows), bins=bins))
    assert first.n.sum() == len(rows) and len(first) == min(bins, len(rows)) and first.n.max() - first.n.min() <= 1
    assert np.isclose((first.n * first.accuracy).sum(), sum(ok for _, ok in rows))
    assert (first.confidence.diff().dropna() >= 0).all() and first.low.ge(0).all() and first.high.le(1).all()
    assert (first.low <= first.accuracy + 1e-9).all() and (first.accuracy <= first.high + 1e-9).all()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_compare_counts_coin_tosses(pairs):
    left, right = zip(*pairs)
    result = ex.compare(made_up('left', left), made_up('right', right))
    a, b = (sum(x and not y for x, y in p) for p in (pairs, [(y, x) for x, y in pairs]))
    tosses = np.array([stats.binom.pmf(k, a + b, .5) for k in range(a + b + 1)])
    expected = min(1, tosses[:min(a, b) + 1].sum() * 2)
    assert (result.only_a, result.only_b) == (a, b) and np.isclose(result.p, expected)
    assert result.p == ex.compare(made_up('right', right), made_up('left', left)).p


def test_compare_matches_by_id_and_refuses_other_cases():
    a, b = made_up('a', [1, 1, 0, 0], list('wxyz')), made_up('b', [0, 0, 1, 1], list('zyxw'))
    assert ex.compare(a, b).both == 2 and ex.compare(a, b).only_a == 0
    for ids in list('wxyq'), list('wxyy'):
        with pytest.raises(ValueError, match='same cases'): ex.compare(a, made_up('c', [1, 1, 0, 0], ids))
    with pytest.raises(ValueError, match='same cases'): ex.compare(a, made_up('c', [1, 1, 0], list('wxy')))


def test_the_verdict_is_the_score_test():
    for k in range(201):                                    # Wilson's interval leaves out one half exactly when the score test rejects it
        undecided = 'cannot tell it from guessing' in ex.verdict(made_up('m', [1] * k + [0] * (200 - k)))
        assert undecided == (abs(k - 100) / np.sqrt(50) <= stats.norm.ppf(.975))


# figures

def test_figures_leave_nothing_open_and_settings_alone():
    import matplotlib.pyplot as plt
    before, size = plt.get_fignums(), plt.rcParams['font.size']
    table = ex.summary_table([made_up('a', [1, 0, 1]), made_up('a', [1, 1, 1])], ex.Line('experts', 6, 9), .9)
    fig = ex.plot_accuracy(table)
    ex.plot_calibration({'a': ex.calibration([1, 2, 3], [1, 0, 1])})
    assert plt.get_fignums() == before and plt.rcParams['font.size'] == size
    bars = [p for p in fig.axes[0].patches if abs(p.get_height() - .42) < 1e-9]
    assert [round(b.get_width(), 4) for b in bars] == [.6667, 1] and bars[0].get_hatch() and len(bars) == 2


@pytest.mark.parametrize('k,n', [(0, 1), (1, 1), (200, 200), (0, 200)])
def test_extreme_scores_draw_and_stay_inside(k, n):
    fig = ex.plot_accuracy(ex.summary_table(made_up('a rather long name of a model in a paper', [1] * k + [0] * (n - k)), ex.Line('experts', n, n), 1.))
    fig.canvas.draw()
    width, height = fig.canvas.get_width_height()
    for text in fig.axes[0].texts:
        box = text.get_window_extent()
        assert 0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height, text


# the report

@pytest.fixture(scope='module')
def report(tmp_path_factory):
    table = ex.summary_table([made_up('gpt2-medium_scratch_neuro_tokenizer_spt', [1] * 132 + [0] * 68)], ex.Line('experts', 641, 1011), .96)
    curve = ex.calibration(np.arange(200), np.arange(200) % 3 > 0)
    wide = pd.DataFrame({f'column {i}': [i / 7] for i in range(14)})
    return ex.write_report(tmp_path_factory.mktemp('report') / 'r.html', 'A & B <script>alert(1)</script>', [
        ('Accuracy', 'One paragraph, <i>as text</i>.', table, (ex.plot_accuracy(table), 'Bar at 0.660, "experts" at 0.634')),
        ('Calibration', curve, (ex.plot_calibration({'model': curve}), 'A flat line')), ('Wide', wide)])


def test_report_is_one_accessible_file(report):
    page = report.read_text(encoding='utf-8')
    tree = reader.fromstring(page.encode())
    assert tree.get('lang') == 'en' and not tree.xpath('//script | //link | //i') and len(tree.xpath('//h1')) == 1
    assert all(s.startswith('data:image/png;base64,') for s in tree.xpath('//@src')) and not tree.xpath('//@href') and not re.search(r'https?://|@import|url\(', page)
    assert all(a.strip() for a in tree.xpath('//img/@alt')) and len(tree.xpath('//img')) == 2
    assert len(tree.xpath('//table')) == len(tree.xpath('//table/caption')) == 3
    assert all(th.get('scope') in ('col', 'row') for th in tree.iter('th')) and not tree.xpath('//thead//td')
    assert all(th.get('scope') == 'row' for th in tree.xpath('//tbody//th')) and tree.xpath('//img/@alt')[0] == 'Bar at 0.660, "experts" at 0.634'
    ids = tree.xpath('//@id')
    assert len(ids) == len(set(ids)) and set(tree.xpath('//section/@aria-labelledby')) == set(ids)


@needs_browser
@pytest.mark.parametrize('width', [320, 390, 1280])
def test_report_never_scrolls_sideways(report, tmp_path, width):
    outer = tmp_path / 'outer.html'
    source = report.read_text(encoding='utf-8').replace('&', '&amp;').replace('"', '&quot;')
    outer.write_text(f'''<meta charset="utf-8"><body><iframe width="{width}" height="900" style="border:0" srcdoc="{source}"></iframe><script>
        onload = () => {{ const d = document.querySelector('iframe').contentDocument;
        document.body.textContent = 'WIDTH ' + d.documentElement.scrollWidth + ' IMAGES ' + [...d.images].every(i => i.naturalWidth > 0 && i.getBoundingClientRect().right <= {width}) }}</script>''', encoding='utf-8')
    flags = '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync --window-size=1400,1000'
    dom = subprocess.run([CHROMIUM, *flags.split(), f'--user-data-dir={tmp_path}/profile', '--dump-dom', outer.as_uri()], capture_output=True, text=True, timeout=120).stdout
    found = re.search(r'WIDTH (\d+) IMAGES (\w+)', dom)
    assert found and int(found[1]) <= width and found[2] == 'true', found


def test_a_killed_writer_leaves_the_old_report(tmp_path):
    file = tmp_path / 'r.html'
    ex.write_report(file, 'old', [])
    kept = file.read_bytes()
    code = textwrap.dedent(f'''
        import os, signal
        from domain_llm import experts
        os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
        experts.write_report({str(file)!r}, 'new', [('h', 'x' * 100000)])''')
    assert subprocess.run([sys.executable, '-c', code]).returncode == -signal.SIGKILL
    assert file.read_bytes() == kept
    ex.write_report(file, 'new', [])
    assert b'<h1>new</h1>' in file.read_bytes()


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_a_full_disk_leaves_the_old_report_and_no_litter(tmp_path, monkeypatch, step):
    file = ex.write_report(tmp_path / 'r.html', 'old', [])
    kept = file.read_bytes()
    def full(*_): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError): ex.write_report(file, 'new', [])
    assert file.read_bytes() == kept and os.listdir(tmp_path) == ['r.html']


def test_report_is_readable_by_others_as_the_umask_says(tmp_path):
    old = os.umask(0o022)
    try: file = ex.write_report(tmp_path / 'r.html', 'title', [])
    finally: os.umask(old)
    assert file.stat().st_mode & 0o777 == 0o644
