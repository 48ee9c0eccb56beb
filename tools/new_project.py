"""Turn a folder of images and labels into a project that is ready to train.

    python tools/new_project.py FOLDER --out my_project.py --html

Recognises COCO JSON, label maps (indices, palettes, colours with a table),
Pascal VOC XML, YOLO text and labelme. Checks the labels, reports what is
there and what is odd, divides into training and validation, chooses settings
and says why. Nothing in FOLDER is changed; converted labels go to a folder
beside the config.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Dict, Sequence

TASKS = ('seg', 'det', 'boxes')
BASES = Path(__file__).resolve().parents[1] / 'configs/_base_'
WEIGHTS = 'https://dl.fbaipublicfiles.com/convnext/'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('folder', type=Path, help='of images and labels')
    parser.add_argument(
        '--out', type=Path, required=True, help='config to write: NAME.py'
    )
    parser.add_argument(
        '--task',
        choices=TASKS,
        default='',
        help='label maps, objects with masks, or boxes only (default: what '
        'the labels allow)',
    )
    parser.add_argument(
        '--arch',
        default='tiny',
        help='of the V2 backbone: atto, femto, pico, nano, tiny (default), '
        'small, base, large, huge',
    )
    of_labels(parser)
    parser.add_argument(
        '--weights',
        choices=['auto', 'none'],
        default='auto',
        help='published ones, where they can be reached, or random ones',
    )
    parser.add_argument(
        '--epochs',
        type=int,
        default=0,
        help='length of training (default: by the number of images)',
    )
    parser.add_argument(
        '--html', action='store_true', help='write a page with pictures too'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of the division (default: 0)'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace an earlier project'
    )
    return parser.parse_args()


def of_labels(parser: argparse.ArgumentParser) -> None:
    """Add what the labels do not say themselves."""
    parser.add_argument(
        '--classes',
        nargs='+',
        default=[],
        metavar='NAME',
        help='names in their order; objects of other classes are left out',
    )
    parser.add_argument(
        '--rename',
        nargs='+',
        default=[],
        metavar='OLD=NEW',
        help='give a class another name, or that of another class',
    )
    parser.add_argument(
        '--zero',
        choices=['class', 'ignore'],
        default='',
        help='whether label 0 of a map is a class (a background is one), or '
        'unlabelled',
    )


def renames(words: Sequence[str]) -> Dict[str, str]:
    """Read OLD=NEW.

    Raises:
        ValueError: for a word without =.
    """
    wrong = [word for word in words if '=' not in word]
    if wrong:
        raise ValueError(f'--rename {wrong[0]}: write OLD=NEW')
    return dict(word.split('=', 1) for word in words)


def reachable(url: str) -> bool:
    """Whether a server answers within some seconds."""
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=5):
            return True
    except HTTPError:
        return True  # the folder itself is nothing, but the server is there
    except OSError:
        return False


def show(done: Any) -> None:
    from mmconvnext.data.project import next_commands
    from mmconvnext.data.settings import reason_lines

    print(*done.report, sep='\n')
    print('\nsettings')
    print(*(f'  {line}' for line in reason_lines(done.settings)), sep='\n')
    if done.findings:
        print('\nodd')
        print(*(f'  {finding}' for finding in done.findings), sep='\n')
    print(f'\nconfig: {done.config}')
    if done.page:
        print(f'page: {done.page}')
    print('\nnext')
    print(*(f'  {line}' for line in next_commands(done)), sep='\n')


def main() -> None:
    args = parse_args()
    from mmconvnext import cli
    from mmconvnext.data.labels import Wishes
    from mmconvnext.data.project import Order, make
    from mmconvnext.data.settings import this_machine

    with cli.clear_errors():
        cli.prepare_hosts()
        wishes = Wishes(tuple(args.classes), args.zero, renames(args.rename))
        online = args.weights == 'auto' and reachable(WEIGHTS)
        order = Order(
            args.folder,
            args.out,
            BASES,
            args.task,
            args.arch,
            wishes,
            args.html,
            args.seed,
            args.overwrite,
            args.epochs,
        )
        done = make(order, this_machine(online))
    show(done)


if __name__ == '__main__':
    main()
