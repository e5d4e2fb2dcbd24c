"""Lessons as readers run them: JupyterLab in a real browser, without data, network and GPU.

That every lesson runs, `nbdev_test` shows. Here run those in which the browser itself matters:
folded exercises, pictures and pages of all kinds, cells that lack the data, and the game, which
trains a model and is played.
"""
import json, os, re, shutil, signal, subprocess, sys, time
from pathlib import Path

import pytest
from notebooks import ROOT

GAME = '81_game'
LESSONS = ['00_course', '02_show', '62_report', GAME]
NAMES = 'chromium', 'chromium-browser', 'google-chrome'
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
DRIVER = shutil.which('chromedriver')
selenium = pytest.importorskip('selenium', reason='needs selenium')
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason='needs Chromium and its driver')

PREFERENCES = {'notebook-extension/tracker': {'windowingMode': 'none',  # draw every cell
                                              'kernelShutdown': True},
               'docmanager-extension/plugin': {'autosave': False},
               'apputils-extension/notification': {'fetchNews': 'false', 'checkForUpdates': False,
                                                   'doNotDisturbMode': True}}


def wait(for_what, seconds, asked, pause=0.2):
    "Ask until the answer is true, and return it."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := asked(): return answer
        time.sleep(pause)
    raise AssertionError(f'{for_what} took more than {seconds} s')


def quiet_environment(home):
    "Give the environment of a reader who has no data, no network and no settings of their own."
    dropped = 'DOMAIN_LLM_DATA', 'MPLBACKEND', 'JUPYTER', 'IPYTHON'
    env = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    for name in ('HTTP_PROXY', 'HTTPS_PROXY', 'http_proxy', 'https_proxy'):
        env[name] = 'http://127.0.0.1:9'
    for name in ('HOME', 'IPYTHONDIR', 'JUPYTER_CONFIG_DIR', 'JUPYTER_DATA_DIR',
                 'JUPYTER_RUNTIME_DIR', 'MPLCONFIGDIR'):
        env[name] = str(home / name.lower())
    return env | dict(no_proxy='127.0.0.1,localhost', HF_HUB_OFFLINE='1', OMP_NUM_THREADS='1',
                      TOKENIZERS_PARALLELISM='false')


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "Start a JupyterLab over a copy of the lessons: its folder, its address and its token."
    home = tmp_path_factory.mktemp('lab')
    shutil.copytree(ROOT / 'nbs', home / 'nbs')
    for name, values in PREFERENCES.items():
        file = home / f'settings/@jupyterlab/{name}.jupyterlab-settings'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    env, log = quiet_environment(home), open(home / 'lab.log', 'w')
    command = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root',
               '--expose-app-in-browser', f'--ServerApp.root_dir={home}/nbs',
               f'--LabApp.user_settings_dir={home}/settings',
               f'--LabApp.workspaces_dir={home}/workspaces', '--LabApp.extension_manager=readonly']
    server = subprocess.Popen(command, cwd=home / 'nbs', env=env, stdout=log, stderr=log,
                              start_new_session=True)
    runtime = Path(env['JUPYTER_RUNTIME_DIR'])
    try:
        file = wait('JupyterLab', 60, lambda: next(runtime.glob('jpserver-*.json'), None))
        about = wait('its address', 60, lambda: json.loads(file.read_text() or '{}'))
        yield home, about['url'], about['token']
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


@pytest.fixture(scope='module')
def page(lab, tmp_path_factory):
    "Open a browser that shows this JupyterLab."
    from selenium import webdriver
    home, url, token = lab
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ('headless=new', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run',
                 'disable-background-networking', 'disable-component-update',
                 'disable-sync', 'window-size=1280,1400', f'user-data-dir={home}/browser',
                 'host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost'):
        options.add_argument(f'--{flag}')
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    browser.set_script_timeout(300)  # a kernel may start slowly
    try:
        browser.get(f'{url}lab?token={token}&reset')
        there = 'return !!(window.jupyterapp && document.querySelector(".jp-LauncherCard"))'
        wait('the page', 60, lambda: browser.execute_script(there))
        yield browser
    finally: browser.quit()


OPEN = """const [path, done] = arguments;
jupyterapp.commands.execute('docmanager:open', {path, factory: 'Notebook'}).then(async panel => {
    panel.id = path; await panel.context.ready; await panel.sessionContext.ready;
    await panel.sessionContext.session.kernel.info; done(true); });"""
FIND = """const panel = [...jupyterapp.shell.widgets("main")].find(w => w.id === arguments[0]);
"""
STATE = f"""{FIND}const code = [...panel.content.model.cells].filter(c => c.type === 'code');
const kinds = c => [...Array(c.outputs.length).keys()].map(i => c.outputs.get(i).type);
const failed = code.findIndex(c => kinds(c).includes('error'));
return [code.length, code.filter(c => c.executionCount).length, failed,
        panel.sessionContext.session.kernel.status];"""
SHOWN = f"""{FIND}
panel.node.querySelector('.jp-OutputArea img')?.scrollIntoView({{block: 'center'}});
const images = [...panel.node.querySelectorAll('img')].filter(i => !i.src.startsWith('https:'));
const blank = images.filter(i => !(i.complete && i.naturalWidth));
return [images.length, blank.map(i => i.alt || 'a figure')];"""
CELLS = f'{FIND}return JSON.stringify(panel.content.model.toJSON().cells);'
CLOSE = f"""{FIND}
panel.sessionContext.shutdown().then(() => {{ panel.dispose(); arguments[1](true) }});"""


def run_all(page, lesson):
    "Open a lesson in its own tab and choose Run All Cells from the menu, with the mouse."
    from selenium.webdriver.common.by import By
    page.execute_async_script(OPEN, f'{lesson}.ipynb')
    page.find_element(By.XPATH, '//div[@id="jp-MainMenu"]//li[.//div[text()="Run"]]').click()
    button = 'li[data-command="runmenu:run-all"]'
    wait('the menu', 60, lambda: page.find_elements(By.CSS_SELECTOR, button))[0].click()
    return time.monotonic()


def finish(page, lesson, home, state):
    "Look at a lesson that has run, keep its cells and, but for the game, end its kernel."
    page.execute_script(f"jupyterapp.shell.activateById('{lesson}.ipynb')")
    latest = time.monotonic() + 30
    while (shown := page.execute_script(SHOWN, f'{lesson}.ipynb'))[1] and time.monotonic() < latest:
        time.sleep(0.2)
    page.save_screenshot(home / f'{lesson}.png')
    cells = json.loads(page.execute_script(CELLS, f'{lesson}.ipynb'))
    if lesson != GAME: page.execute_async_script(CLOSE, f'{lesson}.ipynb')
    n, ran, failed, _ = state
    return dict(cells=cells, n=n, ran=ran, failed=failed, images=shown[0], unseen=shown[1])


@pytest.fixture(scope='module')
def ran(lab, page):
    "Run the lessons, two at a time, and return what was seen of each."
    waiting, running, seen = LESSONS[:], {}, {}
    while waiting or running:
        while waiting and len(running) < 2:
            lesson = waiting.pop(0)
            running[lesson] = run_all(page, lesson)
        time.sleep(0.5)
        for lesson, start in list(running.items()):
            state = page.execute_script(STATE, f'{lesson}.ipynb')
            done = state[0] == state[1] and state[3] == 'idle' or state[2] >= 0
            if done or time.monotonic() > start + 400:
                seen[lesson] = finish(page, lesson, lab[0], state)
                del running[lesson]
    return seen


def pictures(cell):
    "Count the pictures that a cell should show, drawn or computed."
    if cell['cell_type'] == 'markdown':
        return len(re.findall(r'\]\(images/|src="images/', ''.join(cell['source'])))
    shown = [out.get('data', {}) for out in cell.get('outputs', [])]
    pages = ''.join(''.join(data.get('text/html', '')) for data in shown)
    return pages.count('<img ') + sum('image/png' in data for data in shown)


def printed(cell): return ''.join(''.join(out.get('text', '')) for out in cell['outputs'])


@pytest.mark.parametrize('lesson', LESSONS)
def test_a_lesson_runs_from_top_to_bottom_and_shows_its_pictures(ran, lesson):
    seen = dict(ran[lesson])
    cells = seen.pop('cells')
    code = [cell for cell in cells if cell['cell_type'] == 'code']
    errors = [out for cell in code for out in cell['outputs'] if out['output_type'] == 'error']
    assert not errors, '\n'.join(errors[0]['traceback'])
    assert seen['failed'] == -1 and seen['ran'] == seen['n'], seen
    for cell in code:
        if re.match(r'#\| (data|gpu|network|slow)\b', ''.join(cell['source'])):
            assert 'needs' in printed(cell), f'should say what it needs: {cell["source"]}'
    assert printed(code[0]).startswith('Device: ') and f'lesson {lesson[:2]}' in printed(code[0])
    assert seen['images'] == sum(map(pictures, cells)) and not seen['unseen'], seen


def press(page, *keys):
    "Press keys, one after the other, as fast as a person could, wherever the focus is."
    from selenium.webdriver import ActionChains, Keys
    for key in keys:
        shift, name = key.startswith('SHIFT+'), key.removeprefix('SHIFT+')
        held = ActionChains(page).key_down(Keys.SHIFT) if shift else ActionChains(page)
        held.send_keys(getattr(Keys, name))
        (held.key_up(Keys.SHIFT) if shift else held).pause(0.3).perform()


GAME_TEXT = f"""{FIND}const boxes = [...panel.node.querySelectorAll('.widget-radio')];
const page = boxes.pop().closest('.widget-vbox');
page.scrollIntoView({{block: 'center'}}); return page.innerText;"""
FOCUS = """const choices = [...document.querySelectorAll('.widget-radio-box')].pop();
choices?.querySelector('input').focus(); return document.activeElement.type === 'radio';"""
EMPTY = f"""{FIND}const last = what => [...panel.node.querySelectorAll(what)].pop();
return !last('.widget-radio').querySelector('input:checked')
    && +last('.noUi-handle').getAttribute('aria-valuenow') === 50;"""
RUN = f"""{FIND}const [, code, done] = arguments;
panel.sessionContext.session.kernel.requestExecute({{code, store_history: false}}).done.then(
    reply => done(reply.content.status));"""
VALUE = """from ipywidgets import IntSlider
from ipywidgets.widgets.widget import _instances
slider = [w for w in _instances.values() if isinstance(w, IntSlider)][-1]
with open({!r}, 'w') as file: file.write(str(slider.value))"""
FOCUSED = "return document.activeElement.type === 'radio'"


def test_three_rounds_of_the_game_are_played_with_the_keyboard(ran, lab, page):
    page.execute_script(f"jupyterapp.shell.activateById('{GAME}.ipynb')")

    def settled():  # JupyterLab moves the focus a little after it shows a tab
        return page.execute_script(FOCUSED) or page.execute_script(FOCUS) and None

    def text(): return page.execute_script(GAME_TEXT, f'{GAME}.ipynb')

    def empty(): return page.execute_script(EMPTY, f'{GAME}.ipynb')

    def taken():  # a click is sent at once, a slider's value when the kernel has read the last one
        page.execute_async_script(RUN, f'{GAME}.ipynb', VALUE.format(str(lab[0] / 'sure.txt')))
        return int((lab[0] / 'sure.txt').read_text())

    wait('the choices', 180, settled, pause=3)
    answers = lab[0] / 'nbs/game_answers.jsonl'
    for number in (1, 2, 3):
        wait('the case', 180, lambda: f'Case {number} of 10' in text() and empty())
        if number > 1: press(page, *['SHIFT+TAB'] * 4)
        choose = ['TAB', 'SPACE'] if number == 2 else ['SPACE', 'TAB']
        press(page, *choose, 'TAB', *['PAGE_UP'] * number)
        wait('the slider', 180, lambda: taken() == 50 + 5 * number)
        press(page, 'TAB', 'TAB', 'SPACE')
        answer = wait('the answer', 180, lambda: 'is the real one' in text() and text())
        page.save_screenshot(lab[0] / f'game_{number}.png')
        given = [json.loads(line) for line in answers.read_text().splitlines()]
        assert len(given) == number and given[-1]['confidence'] == 50 + 5 * number
        right = given[-1]['correct']
        assert ('Right: ' in answer) == right
        assert f'version {2 if right == (number == 2) else 1} is the real one' in answer
        press(page, 'SPACE')
    wait('the fourth case', 180, lambda: 'Case 4 of 10' in text())
