"""Tables of the READMEs that are made from tables of the project.

python tests/tables.py writes them after a row was added or changed.
"""

import re
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple

import yaml
from mmengine.config import Config

from mmconvnext.archs import ARCHS

ROOT = Path(__file__).parents[1]
INDEX = yaml.safe_load((ROOT / 'model-index.yml').read_text(encoding='utf-8'))
METAFILES = {
    name: yaml.safe_load((ROOT / name).read_text(encoding='utf-8'))
    for name in INDEX['Import']
}
MODELS = [m for meta in METAFILES.values() for m in meta['Models']]
ADE20K = Config.fromfile(ROOT / 'configs' / '_base_' / 'ade20k.py')
PAPERS = {'arXiv 2201.03545': 'V1', 'arXiv 2301.00808': 'V2', 'none': ''}


def schedule(data: dict) -> str:
    """Length, batch size, and what differs from the method's default."""
    if 'Epochs' in data:
        parts = [f'{data["Epochs"]} epochs']
    else:
        parts = [f'{data["Iterations"] / 1000:.0f}k iterations']
    parts.append(f'batch {data["Batch Size"]}')
    if data['Training Data'] == 'ADE20K':
        parts.append(data['FLOPs Input'].split(' x ')[1])
    return ', '.join([*parts, *data.get('Augmentation', '').split()])


def published(data: dict) -> str:
    """Box / mask AP, or single-scale / multi-scale mIoU."""
    keys = ('box AP', 'mask AP')
    if data['Training Data'] == 'ADE20K':
        keys = ('mIoU', 'mIoU (ms+flip)')
    numbers = [str(data.get(f'Published {key}', '-')) for key in keys]
    return 'unpublished' if set(numbers) == {'-'} else ' / '.join(numbers)


def recipe(model: dict) -> List[str]:
    data = model['Metadata']
    source = data['Published Source']
    for name, short in PAPERS.items():
        source = source.replace(name, short)
    return [
        f'`{model["Name"]}`',
        data['Pre-training'],
        schedule(data),
        published(data),
        source,
        str(data.get('Measured', '')),
        f'{data["Parameters"] / 1e6:.0f} M',
        f'{data["FLOPs"] / 1e9:.0f} G',
    ]


def released(model: dict) -> List[str]:
    name = model['Name']
    address = model['Converted From']['Weights']
    return [f'`{name}`', address, published(model['Metadata'])]


def arch(name: str) -> List[str]:
    row = ARCHS[name]
    depths, dims = (' '.join(map(str, x)) for x in (row.depths, row.dims))
    counts = [
        f'{row.params[v] or "unpublished"}' if v in row.params else ''
        for v in (1, 2)
    ]
    return [name, depths, dims, *counts]


def protocol(name: str, row: dict) -> List[str]:
    windows = {'slide': 'crops', 'whole': 'the whole image'}[row['mode']]
    scales = ' '.join(f'{ratio:g}' for ratio in row['ratios'])
    return [f'`{name}`', windows, scales + ', flip' * row['flip']]


class Table(NamedTuple):
    """A table of a README: its first line finds it, ``rows`` makes it."""

    readme: str
    head: List[str]
    rows: Callable[[], List[List[str]]]

    def text(self) -> str:
        lines = [self.head, ['---'] * len(self.head), *self.rows()]
        return ''.join(f'| {" | ".join(cells)} |\n' for cells in lines)

    def current(self) -> str:
        """Return the table as the README has it."""
        first = re.escape(f'| {" | ".join(self.head)} |')
        text = (ROOT / self.readme).read_text(encoding='utf-8')
        (found,) = re.findall(rf'^{first}\n(?:\|.*\n)+', text, re.M)
        return found


TABLES: Dict[str, Table] = {
    'recipes': Table(
        'configs/README.md',
        ['config', 'pre-training', 'schedule', 'published', 'source']
        + ['ours', 'params', 'FLOPs'],
        lambda: [recipe(model) for model in MODELS],
    ),
    'released': Table(
        'configs/README.md',
        ['recipe', 'released by the authors', 'published'],
        lambda: [released(m) for m in MODELS if 'Converted From' in m],
    ),
    'protocols': Table(
        'configs/README.md',
        ['protocol', 'windows', 'scales'],
        lambda: [protocol(*item) for item in ADE20K.protocols.items()],
    ),
    'archs': Table(
        'mmconvnext/README.md',
        ['arch', 'blocks', 'channels', 'V1, M params', 'V2, M params'],
        lambda: [arch(name) for name in ARCHS],
    ),
}


def main() -> None:
    for table in TABLES.values():
        path = ROOT / table.readme
        text = path.read_text(encoding='utf-8')
        text = text.replace(table.current(), table.text())
        path.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main()
