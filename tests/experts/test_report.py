"""The report in a real browser, under a crash and on a full disk, and with a plan of its own."""
import os, re, shutil, signal, subprocess, sys, textwrap

import numpy as np
import pandas as pd
import pytest

from domain_llm.bench.scores import Scores
from domain_llm.bench.stats import Line
from domain_llm.experts.people import calibration
from domain_llm.experts.report import (
    evaluation_sections, plot_accuracy, plot_calibration, write_report)
from domain_llm.experts.verdict import gaps_from_experts, summary_table
from small_worlds import made_up, world

CHROMIUM = next(
    (c for c in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')) if c), None
)
needs_browser = pytest.mark.skipif(not CHROMIUM, reason='needs Chromium')


def test_a_declared_comparison_stays_alone_in_the_report(tmp_path):
    scores, rows = world(np.random.default_rng(9), 40, 60)
    plan = dict(
        primary=['model', 'experts'], margin=0.15, declared='2020-01-01T00:00:00+00:00', sha256='s'
    )
    stamp = dict(scored='2021-01-01T00:00:00+00:00', plan_sha256='s')
    models = [
        Scores(n, s.frame, stamp)
        for n, s in (('model', scores), ('other', made_up('o', np.arange(200) % 2)))
    ]
    gaps = gaps_from_experts(models, rows, plan=plan)
    assert gaps[0].corrected is None and gaps[1].corrected is None      # one other look is one look
    sections = evaluation_sections(
        [*models, Scores('third', models[1].frame, stamp)], rows, plan=plan
    )
    assert (
        sections[0][1].startswith('Declared beforehand: model')
        and 'within 15 points' in sections[0][1]
    )
    table = sections[1][2].set_index('who')
    assert table.corrected['model'] == table.p['model'] and table.corrected['third'] == min(
        1, 2 * table.p['third']
    )


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    table = summary_table(
        [made_up('gpt2-medium_scratch_neuro_tokenizer_spt', [1] * 132 + [0] * 68)],
        Line('experts', 641, 1011),
        0.96,
    )
    curve = calibration(np.arange(200), np.arange(200) % 3 > 0)
    wide = pd.DataFrame({f'column {i}': [i / 7] for i in range(14)})
    return write_report(
        tmp_path_factory.mktemp('report') / 'r.html',
        'A & B <script>alert(1)</script>',
        [
            (
                'Accuracy',
                'One paragraph, <i>as text</i>.',
                table,
                (plot_accuracy(table), 'Bar at 0.660, "experts" at 0.634'),
            ),
            ('Calibration', curve, (plot_calibration({'model': curve}), 'A flat line')),
            ('Wide', wide),
        ],
    )


@needs_browser
@pytest.mark.parametrize('width', [320, 390, 1280])
def test_report_never_scrolls_sideways(report, tmp_path, width):
    outer = tmp_path / 'outer.html'
    source = report.read_text(encoding='utf-8').replace('&', '&amp;').replace('"', '&quot;')
    outer.write_text(
        f"""<meta charset="utf-8"><body>
        <iframe width="{width}" height="900" style="border:0" srcdoc="{source}"></iframe><script>
        onload = () => {{ const d = document.querySelector('iframe').contentDocument;
        const fits = i => i.naturalWidth > 0 && i.getBoundingClientRect().right <= {width};
        const said = 'WIDTH ' + d.documentElement.scrollWidth;
        document.body.textContent = said + ' IMAGES ' + [...d.images].every(fits) }}
        </script>""",
        encoding='utf-8',
    )
    flags = (
        '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run '
        '--disable-background-networking --disable-component-update --disable-sync '
        '--window-size=1400,1000'
    )
    dom = subprocess.run(
        [
            CHROMIUM,
            *flags.split(),
            f'--user-data-dir={tmp_path}/profile',
            '--dump-dom',
            outer.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    found = re.search(r'WIDTH (\d+) IMAGES (\w+)', dom)
    assert found and int(found[1]) <= width and found[2] == 'true', found


def test_a_killed_writer_leaves_the_old_report(tmp_path):
    file = tmp_path / 'r.html'
    write_report(file, 'old', [])
    kept = file.read_bytes()
    code = textwrap.dedent(f"""
        import os, signal
        import domain_llm.experts.report as report
        os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
        report.write_report({str(file)!r}, 'new', [('h', 'x' * 100000)])""")
    assert subprocess.run([sys.executable, '-c', code]).returncode == -signal.SIGKILL
    assert file.read_bytes() == kept
    write_report(file, 'new', [])
    assert b'<h1>new</h1>' in file.read_bytes()


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_a_full_disk_leaves_the_old_report_and_no_litter(tmp_path, monkeypatch, step):
    file = write_report(tmp_path / 'r.html', 'old', [])
    kept = file.read_bytes()
    def full(*_): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError): write_report(file, 'new', [])
    assert file.read_bytes() == kept and os.listdir(tmp_path) == ['r.html']


def test_report_is_readable_by_others_as_the_umask_says(tmp_path):
    old = os.umask(0o022)
    try: file = write_report(tmp_path / 'r.html', 'title', [])
    finally: os.umask(old)
    assert file.stat().st_mode & 0o777 == 0o644
