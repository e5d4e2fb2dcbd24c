"""Make pages, run lessons, check code: `python tools --help` lists what this program does."""
import argparse, sys
from pathlib import Path


def pages(options):
    "Write what nobody writes by hand: tops of lessons, claims.md, DID_NOT_WORK.md, README.md."
    import pages
    from notebooks import ROOT
    if not options.check: return pages.write()
    if stale := [path.relative_to(ROOT).as_posix() for path in pages.stale()]:
        sys.exit(f"{', '.join(stale)} should be what the sources give, but is not: "
                 'run python tools pages')


def outputs(options):
    "Run lessons and write, compare or only time what they print."
    import outputs
    mode = 'compare' if options.compare else 'time' if options.time else 'write'
    outputs.run_all(mode, [path.resolve() for path in options.lessons])


def check(options):
    "Print where code departs from the dialect in CONTRIBUTING.md."
    import dialect
    found = dialect.check(options.paths)
    for line in found: print(line)
    if found: sys.exit(f'{len(found)} faults')


def toy(options):
    "Train the demo's model and store it in the package: about three minutes on two quiet cores."
    import toy
    toy.make(options.folder)


def results(options):
    "Compute the results that are stored with the package anew, and compare or store them."
    import results
    results.run_all([path.resolve() for path in options.lessons], options.store)


def parser():
    "Describe the commands and their options."
    top = argparse.ArgumentParser(prog='python tools', description=__doc__)
    commands = top.add_subparsers(required=True, metavar='COMMAND')

    def command(does):
        added = commands.add_parser(does.__name__, help=does.__doc__, description=does.__doc__)
        added.set_defaults(does=does)
        return added

    command(pages).add_argument(
        '--check', action='store_true', help='write nothing, and fail where a page is stale')
    added = command(outputs)
    added.add_argument('lessons', nargs='*', type=Path, help='such as nbs/30_gpt2.ipynb; else all')
    way = added.add_mutually_exclusive_group()
    way.add_argument('--compare', action='store_true',
                     help='write nothing, and fail where a cell raises or prints something else')
    way.add_argument('--time', action='store_true',
                     help='write the run cards alone: for a machine without the data')
    added = command(results)
    added.add_argument('lessons', nargs='*', type=Path,
                       help='such as nbs/46_finetuning.ipynb; else all, which takes hours')
    added.add_argument('--store', action='store_true', help='store what comes, and compare nothing')
    command(check).add_argument('paths', nargs='*', type=Path, help='files or folders; else all')
    command(toy).add_argument(
        'folder', nargs='?', type=Path, help='train here, or go on here; else in a temporary one')
    return top


if __name__ == '__main__':
    options = parser().parse_args()
    options.does(options)
