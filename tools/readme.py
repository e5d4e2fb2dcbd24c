"""Write README.md from nbs/index.ipynb: hidden cells and directives dropped, links rewritten for the repository's root.

python tools/readme.py          writes README.md
python tools/readme.py --check  fails when README.md is not what index.ipynb gives
"""
import json, re, sys
from pathlib import Path

root = Path(__file__).parent.parent


def cell_text(cell):
    "Give a cell as Markdown, or '' when it is hidden."
    source = "".join(cell["source"])
    if re.search(r"^#\|\s*hide", source, re.M): return ""
    if cell["cell_type"] == "markdown": return re.sub(r"\]\((?!https?://|#)", "](nbs/", source).replace('src="images/', 'src="nbs/images/').replace("](nbs/../", "](")
    code = re.sub(r"^#\|.*\n?", "", source, flags=re.M).strip()
    printed = "".join("".join(o.get("text", o.get("data", {}).get("text/plain", ""))) for o in cell["outputs"])
    shown = [("python", code)] if code and not re.search(r"^#\|\s*echo:\s*false", source, re.M) else []
    return "\n\n".join(f"```{kind}\n{text.rstrip()}\n```" for kind, text in shown + [("text", printed)] if text)


cells = json.loads((root / "nbs/index.ipynb").read_text(encoding="utf-8"))["cells"]
readme = "<!-- made from nbs/index.ipynb by tools/readme.py; edit that notebook -->\n\n" + "\n\n".join(t for t in map(cell_text, cells) if t) + "\n"

if "--check" in sys.argv:
    sys.exit(0 if (root / "README.md").read_text(encoding="utf-8") == readme else "README.md differs from what nbs/index.ipynb gives: run python tools/readme.py")
(root / "README.md").write_text(readme, encoding="utf-8")
