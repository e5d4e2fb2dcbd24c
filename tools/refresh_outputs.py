"""Run lessons and store their outputs, honouring the flags of cells; each lesson in a process of its own.

DOMAIN_LLM_DATA=... python tools/refresh_outputs.py [nbs/05_gpt2.ipynb ...]
"""
import os, re, subprocess, sys
from pathlib import Path

from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell

SKIPPED = {"gpu", "network", "slow", "exercise"} | (set() if os.environ.get("DOMAIN_LLM_DATA") else {"data"})


def skipped(cell):
    "Say whether a cell's directives keep it from being run here."
    words = set(re.findall(r"^#\|\s*(\w+)", cell.source, re.M))
    return cell.cell_type != "code" or bool(words & SKIPPED) or bool(re.search(r"^#\|\s*eval:\s*false", cell.source, re.M))


def refresh(path):
    "Run one lesson from top to bottom and write its outputs, without what went to standard error, into the file."
    nb, shell = read_nb(path), CaptureShell(path=path.parent, mpl_format="png")
    code = [c for c in nb.cells if c.cell_type == "code"]
    for cell in code: cell.outputs = []
    shell.run_all(nb, exc_stop=True, preproc=skipped)
    for cell in code: cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    write_nb(nb, path)
    print(f"{path.name}: {sum(len(c.outputs) for c in code)} outputs")


root = Path(__file__).parent.parent
paths = [Path(a).resolve() for a in sys.argv[1:]] or sorted((root / "nbs").glob("[0-9i]*.ipynb"))
if len(paths) == 1: refresh(paths[0])
else:
    for path in paths: subprocess.run([sys.executable, __file__, path], check=True)
