"""What the campaigns share: a seed, a count, and the figure at the end."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Sequence, Tuple

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / 'tests'):
    sys.path.insert(0, str(folder))
START = time.monotonic()


def arguments(
    doc: str, count: int, what: Sequence[str] = ()
) -> Tuple[argparse.Namespace, random.Random]:
    """Read ``--seed``, ``--count`` and, for a choice, ``--what``."""
    parser = argparse.ArgumentParser(description=doc.partition('\n')[0])
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--count', type=int, default=count)
    if what:
        parser.add_argument('--what', choices=what, default=what[0])
    args = parser.parse_args()
    return args, random.Random(args.seed)


def finish(name: str, args: argparse.Namespace, figures: Counter) -> None:
    """Print the figure in one line; exit 1 where something was wrong."""
    wrong = sum(n for what, n in figures.items() if what.startswith('WRONG'))
    text = ', '.join(f'{n} {what}' for what, n in sorted(figures.items()))
    seconds = time.monotonic() - START
    cases = f'{args.count} cases, {seconds:.0f} s'
    print(f'{name}, seed {args.seed}, {cases}: {text}')
    sys.exit(wrong > 0)
