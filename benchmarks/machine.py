"""What every table of RESULTS.md says of the machine it was measured on."""
import os, platform, re
from datetime import date
from importlib.metadata import version
from pathlib import Path


def processor():
    "Name the processor, and whether it multiplies bfloat16 in tiles."
    info = Path('/proc/cpuinfo')
    text = info.read_text() if info.exists() else ''
    found = re.search(r'model name\s*: (.*)', text)
    name = found[1] if found else platform.processor() or platform.machine()
    return name + (', amx_bf16' if 'amx_bf16' in text else '')


def machine(*packages):
    "Give one line: date, processor, load, system, Python and the versions of packages."
    load = f'load {os.getloadavg()[0]:.1f} at the start, ' if hasattr(os, 'getloadavg') else ''
    return (
        f'{date.today()}, {os.cpu_count()} cores of {processor()}, {load}{platform.system()}, '
        f'Python {platform.python_version()}'
        + ''.join(f', {name} {version(name)}' for name in packages)
    )
