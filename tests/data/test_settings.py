"""Settings of small trainings, as the config has them."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmconvnext.data.config_text import Project, config_text
from mmconvnext.data.settings import Machine, Settings, choose
from mmconvnext.data.splits import Split
from mmconvnext.data.summary import Summary

ROOT = Path(__file__).parents[2]
CPU = Machine('', 8 << 30, False, False, 2)
GPU = Machine('H100', 70 << 30, True, True, 16)
IMAGES = 160


def summary(most: int = 8, side: float = 60.0) -> Summary:
    sides = [side] * IMAGES
    sizes = {(256, 192): IMAGES}
    classes = {'a': (IMAGES, IMAGES), 'b': (IMAGES, IMAGES)}
    each = [most] * IMAGES
    return Summary(
        IMAGES, IMAGES, sizes, classes, each, sides, 0.0, len(sides)
    )


def chosen(task: str, machine: Machine = CPU, **options) -> Settings:
    epochs = options.pop('epochs', 0)
    split = Split([None] * IMAGES, [None] * 40, 'a reason')
    return choose(task, 'atto', summary(**options), split, machine, epochs)


def config(settings: Settings, tmp_path: Path) -> Config:
    bases = (ROOT / 'configs/_base_').as_posix()
    palette = [(0, 0, 0), (1, 1, 1)]
    project = Project('p', '/d', bases, ['a', 'b'], palette, '.jpg', 'today')
    path = tmp_path / 'p.py'
    path.write_text(config_text(project, settings), encoding='utf-8')
    return Config.fromfile(path)


@pytest.mark.parametrize(
    'machine, rate, ratios, hue',
    [(CPU, 2e-3, (0.75, 1.5), 5), (GPU, 1e-4, (0.5, 2.0), None)],
)
def test_short_trainings_see_images_as_they_are(
    machine: Machine, rate: float, ratios: tuple, hue, tmp_path: Path
) -> None:
    cfg = config(chosen('seg', machine), tmp_path)
    assert cfg.optim_wrapper.optimizer.lr == rate
    steps = {step.type: step for step in cfg.train_pipeline}
    assert tuple(steps['RandomResize'].ratio_range) == ratios
    assert steps['PhotoMetricDistortion'].get('hue_delta') == hue


@pytest.mark.parametrize(
    'machine, kind', [(CPU, 'CosineAnnealingLR'), (GPU, 'MultiStepLR')]
)
def test_the_rate_of_detectors(
    machine: Machine, kind: str, tmp_path: Path
) -> None:
    cfg = config(chosen('det', machine, epochs=8), tmp_path)
    assert cfg.param_scheduler[1].type == kind
    # atto has narrow heads on any machine
    assert cfg.train_cfg.val_interval == 2
    assert cfg.train_cfg.max_epochs == 8


@pytest.mark.parametrize(
    'task, batch, length, steps', [('seg', 4, 320, 320), ('det', 2, 8, 640)]
)
def test_epochs_are_the_users(
    task: str, batch: int, length: int, steps: int
) -> None:
    settings = chosen(task, epochs=8)
    assert settings.batch == batch
    assert (settings.length, settings.steps) == (length, steps)
    (choice,) = [c for c in settings.reasons if '--epochs' in c.reason]
    assert choice.reason == f'--epochs 8, {steps} steps'


@pytest.mark.parametrize(
    'machine, workers',
    [(CPU, 0), (CPU._replace(cores=32), 2), (GPU, 4)],
)
@pytest.mark.parametrize('task', ['seg', 'det'])
def test_readers_leave_the_cores_to_the_model(
    task: str, machine: Machine, workers: int, tmp_path: Path
) -> None:
    cfg = config(chosen(task, machine), tmp_path)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        assert loader.num_workers == workers
        assert loader.persistent_workers == (workers > 0)


@pytest.mark.parametrize(
    'most, kept, samples',
    [
        (1, 20, 32),
        (4, 20, 32),
        (8, 32, 64),
        (30, 100, 64),
        (50, 100, 128),
        (151, 350, 128),
    ],
)
def test_candidates_follow_from_the_objects(
    most: int, kept: int, samples: int, tmp_path: Path
) -> None:
    settings = chosen('det', most=most)
    assert (settings.most, settings.samples) == (kept, samples)
    cfg = config(settings, tmp_path)
    assert cfg.model.test_cfg.rcnn.max_per_img == kept
    assert cfg.model.test_cfg.rpn.max_per_img == (200 if most < 51 else 1000)
    assert cfg.model.train_cfg.rcnn.sampler.num == samples


@pytest.mark.parametrize(
    'machine, most, crop',
    [(CPU, 15, None), (CPU, 16, (96, 128)), (GPU, 16, None)],
)
@pytest.mark.parametrize('task', ['det', 'boxes'])
def test_a_cpu_learns_from_parts_of_full_images(
    task: str, machine: Machine, most: int, crop, tmp_path: Path
) -> None:
    cfg = config(chosen(task, machine, most=most), tmp_path)
    steps = {step.type: step for step in cfg.train_pipeline}
    assert ('RandomCrop' in steps) == (crop is not None)
    if crop:
        types = list(steps)
        assert types.index('RandomResize') < types.index('RandomCrop')
        assert tuple(steps['RandomCrop'].crop_size) == crop
        assert steps['RandomCrop'].recompute_bbox == (task == 'det')
        assert steps['FilterAnnotations'].by_mask == (task == 'det')


def test_small_objects_are_enlarged() -> None:
    assert chosen('det', side=60.0).scale == (256, 192)
    assert chosen('det', side=16.0).scale == (384, 288)
    assert chosen('det', side=4.0).scale == (512, 384)
