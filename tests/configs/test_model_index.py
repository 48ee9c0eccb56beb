"""The model index agrees with the configs and the tools."""

import copy
from typing import Iterator

import pytest
from mmengine.config import Config
from tables import INDEX, METAFILES, MODELS, ROOT
from tiny import build

from mmconvnext.analysis.complexity import complexity, default_shape

RECIPES = sorted(
    path.stem
    for path in ROOT.glob('configs/*.py')
    if path.stem.endswith(('_coco', '_ade20k'))
)
# metadata key: the words of a config's header
PUBLISHED = {
    'Published box AP': 'box AP {}',
    'Published mask AP': 'mask AP {}',
    'Published mIoU': 'mIoU {} single-scale',
    'Published mIoU (ms+flip)': '{} multi-scale',
}
LSJ = [('RandomResize', (0.1, 2.0))]


def test_every_recipe_is_in_the_index() -> None:
    assert sorted(m['Name'] for m in MODELS) == RECIPES
    collections = {
        c['Name'] for f in METAFILES.values() for c in f['Collections']
    }
    assert {m['In Collection'] for m in MODELS} == collections


def test_every_metafile_is_imported() -> None:
    found = {f'configs/{p.name}' for p in ROOT.glob('configs/*.yml')}
    assert set(INDEX['Import']) == found
    for name in found:
        method = name.split('/')[1].replace('_metafile.yml', '')
        for model in METAFILES[name]['Models']:
            assert model['Name'].startswith(f'{method}_convnext')


@pytest.mark.parametrize('model', MODELS, ids=lambda model: model['Name'])
def test_metadata_is_that_of_the_config(model: dict) -> None:
    path = ROOT / model['Config']
    assert path.stem == model['Name']
    cfg, data = Config.fromfile(path), model['Metadata']
    assert data['Batch Size'] == cfg.auto_scale_lr.base_batch_size
    if 'Epochs' in data:
        assert data['Epochs'] == cfg.train_cfg.max_epochs
        resizes = [
            (step.type, tuple(step.ratio_range))
            for step in cfg.train_pipeline
            if 'ratio_range' in step
        ]
        assert (data.get('Augmentation') == 'LSJ') == (resizes == LSJ)
    else:
        assert data['Iterations'] == cfg.train_cfg.max_iters
    head = ' '.join(path.read_text('utf-8').split('_base_ =')[0].split('\n# '))
    numbers = {k: v for k, v in data.items() if k in PUBLISHED}
    for key, value in numbers.items():
        assert PUBLISHED[key].format(value) in head
    source = data['Published Source']
    assert (source in head) if numbers else (source == 'none')
    assert numbers or 'Published: nothing' in head


AUTHORS = 'https://dl.fbaipublicfiles.com/convnext/'
RELEASED = {m['Name']: m for m in MODELS if 'Converted From' in m}


def test_every_released_model_is_listed() -> None:
    """V1 without DINOv3: what the authors' READMEs link to."""
    v1 = [n for n in RECIPES if '_convnext_' in n and 'dinov3' not in n]
    assert sorted(RELEASED) == v1
    assert len(RELEASED) == 13


@pytest.mark.parametrize('name', RELEASED)
def test_a_released_model_is_that_of_its_recipe(name: str) -> None:
    address = RELEASED[name]['Converted From']['Weights']
    method, rest = name.split('_convnext_')
    arch, data = rest.rsplit('_', 1)
    arch, _, weights = arch.partition('-')
    side = 640 if weights else 512
    tail = '3x' if data == 'coco' else f'{side}x{side}'
    file = f'{method}_convnext_{arch}_{weights or "1k"}_{tail}.pth'
    assert address == f'{AUTHORS}{data}/{file}'
    head = (
        (ROOT / f'configs/{name}.py').read_text('utf-8').split('_base_ =')[0]
    )
    assert address in head
    # The commands that reproduce its number without training.
    lines = head.replace('\\\n#', '').replace('\n#', '\n')
    commands = [' '.join(line.split()) for line in lines.splitlines()]
    assert (
        'python tools/convert_checkpoint.py ADDRESS released.pth '
        '--to native --whole'
    ) in commands
    options = '' if data == 'coco' else ' --protocol ss_slide'
    test = f'python tools/test.py configs/{name}.py released.pth{options}'
    assert test in commands


def counted() -> Iterator[object]:
    """Yield the models whose count is computed here.

    What has queries is computed, on one core in ten seconds to a minute: of
    each of these methods and data sets the smallest.
    """
    seen = set()
    for model in MODELS:
        name = model['Name']
        slow = name.startswith(('mask2former', 'dino'))
        method = name.split('_')[0], name.split('_')[-1]
        if slow and method in seen:
            continue
        seen.add(method)
        marks = [pytest.mark.slow] if slow else []
        yield pytest.param(model, id=name, marks=marks)


def lacking_here(cfg: Config) -> int:
    """Return how many weights DINO has less than with the default hosts.

    MMDetection 3.3.0 encodes the place of a query in 512 numbers, the
    maintained fork in 1,024.
    """
    if cfg.model.type != 'DINO':
        return 0
    decoder = build(copy.deepcopy(cfg), 'meta').decoder
    first = decoder.ref_point_head.layers[0]
    return (1024 - first.in_features) * first.out_features


@pytest.mark.parametrize('model', counted())
def test_counts_are_the_tool_s(model: dict) -> None:
    cfg, data = Config.fromfile(ROOT / model['Config']), model['Metadata']
    found = complexity(cfg, default_shape(cfg))
    lacking = lacking_here(cfg)
    assert found.params == data['Parameters'] - lacking
    queries, layers = 900, 6
    assert found.flops == data['FLOPs'] - lacking * queries * layers
    height, width = found.shape
    assert data['FLOPs Input'] == f'{width} x {height}'
