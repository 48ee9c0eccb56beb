"""The recipes' metafiles, and the table in configs/README.md made of them.

python tests/recipes.py writes the table after a metafile has changed.
"""

import re
from pathlib import Path
from typing import List

import yaml

ROOT = Path(__file__).parents[1]
README = ROOT / 'configs' / 'README.md'
INDEX = yaml.safe_load((ROOT / 'model-index.yml').read_text(encoding='utf-8'))
METAFILES = {
    name: yaml.safe_load((ROOT / name).read_text(encoding='utf-8'))
    for name in INDEX['Import']
}
MODELS = [m for meta in METAFILES.values() for m in meta['Models']]
HEAD = ['config', 'pre-training', 'schedule', 'published', 'source', 'ours']
HEAD += ['params', 'FLOPs']
TABLE = re.compile(rf'^\| {" . ".join(HEAD)} \|\n(?:\|.*\n)+', re.M)
PAPERS = {'arXiv 2201.03545': 'V1', 'arXiv 2301.00808': 'V2', 'none': ''}


def schedule(data: dict) -> str:
    """Length, batch size, and what differs from the method's default."""
    if 'Epochs' in data:
        parts = [f'{data["Epochs"]} epochs']
    else:
        parts = [f'{data["Iterations"] // 1000}k iterations']
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


def row(model: dict) -> List[str]:
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


def table() -> str:
    """Markdown with one row per recipe, in the order of the metafiles."""
    rows = [HEAD, ['---'] * len(HEAD), *map(row, MODELS)]
    return ''.join(f'| {" | ".join(cells)} |\n' for cells in rows)


def main() -> None:
    text, count = TABLE.subn(lambda _: table(), README.read_text('utf-8'))
    assert count == 1, f'{README} has {count} tables of recipes'
    README.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main()
