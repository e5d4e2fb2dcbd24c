"""Make the table of lessons for the front page from the lessons themselves and their run cards.

python tools/lesson_table.py  prints it
"""
import json, re
from configparser import ConfigParser
from pathlib import Path

from domain_llm.course import KINDS, run_cards

ROOT = Path(__file__).resolve().parents[1]
COLAB = "https://colab.research.google.com"


def opening(path):
    "Read a lesson's first Markdown cell, which begins with its title."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return next(text for c in cells if c["cell_type"] == "markdown" and (text := "".join(c["source"])).startswith("# "))


def settings():
    "Read settings.ini."
    found = ConfigParser(delimiters=["="])
    found.read(ROOT / "settings.ini", encoding="utf-8")
    return found["DEFAULT"]


def badge(path):
    "Link a lesson to Colab, by the names in settings.ini."
    cfg = settings()
    lesson = f"{COLAB}/github/{cfg['user']}/{cfg['repo']}/blob/{cfg['branch']}/nbs/{path.name}"
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({lesson})"


def module_of(path):
    "Read which module a lesson exports to."
    return re.search(r"#\| default_exp ([\w.]+)", path.read_text(encoding="utf-8"))[1]


def minutes(card):
    "Write the minutes that a run without data took, or that nobody measured it."
    return "not yet" if card is None else "under 1" if card["plain"] < 30 else f"{card['plain'] / 60:.0f}"


def row(path, cards):
    "Write one lesson's row: lesson, module, question, minutes on each kind of device, badge."
    text, number, module = opening(path), path.stem[:2], module_of(path)
    title, question = re.match("# (.+)", text)[1], re.search(r"[A-Z][^.?!\n]*\?", text)[0]
    times = [minutes(cards.get(number, {}).get(kind)) for kind in KINDS]
    return "| " + " | ".join([f"[{number} {title}]({path.name})", f"`{module}`", question, *times, badge(path)]) + " |"


def table():
    "Return the table in Markdown, with links as seen from nbs/."
    cards = run_cards()
    head = ["lesson", "module", "the question it answers", *(f"minutes on a {kind}" for kind in KINDS), "open"]
    rows = [row(p, cards) for p in sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *rows])


if __name__ == "__main__": print(table())
