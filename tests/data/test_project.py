"""From a folder in each format to a config that trains."""

import hashlib
from pathlib import Path
from typing import Dict

import cv2
import numpy as np
import pytest
from converters import CLASSES, FORMATS, draw, read_json
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from mmconvnext.data import check
from mmconvnext.data.labels import Wishes
from mmconvnext.data.palette import colours
from mmconvnext.data.project import Done, Order, make, next_commands
from mmconvnext.data.settings import Machine
from mmconvnext.inference.scores import scorer

ROOT = Path(__file__).parents[2]
CPU = Machine('', 8 << 30, False, False, 2)


@pytest.fixture(scope='module')
def scenes() -> list:
    return draw()


def order(folder: Path, out: Path, **options: object) -> Order:
    defaults = dict(bases=ROOT / 'configs/_base_', arch='atto')
    return Order(folder, out, **{**defaults, **options})


def fingerprint(folder: Path) -> Dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def made(name: str, scenes: list, tmp_path: Path, **options: object) -> Done:
    folder = tmp_path / 'a folder'
    FORMATS[name].write(folder, scenes)
    return make(order(folder, tmp_path / 'mine.py', **options), CPU)


def truth(scenes: list, classes: list) -> list:
    """List class and box of every object."""
    return sorted(
        (classes.index(thing.name), *(round(side) for side in thing.box))
        for scene in scenes
        for thing in scene.things
    )


@pytest.mark.parametrize('name', FORMATS)
def test_every_format_becomes_a_project(
    name: str, scenes: list, tmp_path: Path
) -> None:
    row, folder = FORMATS[name], tmp_path / 'a folder'
    row.write(folder, scenes)
    before = fingerprint(folder)
    done = make(order(folder, tmp_path / 'mine.py'), CPU)
    assert fingerprint(folder) == before
    assert f'format: {row.name}' in done.report
    cfg = Config.fromfile(done.config)
    assert done.settings.task == row.task
    assert tuple(cfg.classes) == tuple(row.classes)
    assert check(cfg) == []
    init_default_scope(cfg.default_scope)
    parts = [
        DATASETS.build(cfg[f'{part}_dataloader'].dataset)
        for part in ('train', 'val')
    ]
    assert sum(map(len, parts)) == len(scenes)
    sample = parts[0][0]['data_samples']
    assert ('gt_sem_seg' if row.task == 'seg' else 'gt_instances') in sample
    assert ('gt_instances' in sample and 'masks' in sample.gt_instances) == (
        row.task == 'det'
    )


@pytest.mark.parametrize('name', ['coco', 'voc', 'yolo boxes', 'labelme'])
def test_objects_are_where_they_were(
    name: str, scenes: list, tmp_path: Path
) -> None:
    done = made(name, scenes, tmp_path)
    labels = done.config.with_suffix('')
    rows = [
        row
        for part in ('train', 'val')
        for row in read_json(labels / f'{part}.json')['annotations']
    ]
    found = sorted(
        (row['category_id'] - 1, *(round(side) for side in row['bbox']))
        for row in rows
    )
    classes = list(FORMATS[name].classes)
    expected = truth(scenes, classes)
    assert len(found) == len(expected)
    assert np.abs(np.subtract(found, expected)).max() <= 1


@pytest.mark.parametrize('name', ['label maps', 'palette', 'colours'])
def test_maps_hold_what_they_held(
    name: str, scenes: list, tmp_path: Path
) -> None:
    done = made(name, scenes, tmp_path)
    shift = 0 if name == 'palette' else 1
    paths = {p.stem.split('.')[0]: p for p in maps_of(done)}
    assert len(paths) == len(scenes)
    for scene in scenes:
        written = cv2.imread(str(paths[scene.name]), cv2.IMREAD_UNCHANGED)
        # uint8: 0 - 1 is 255, which is ignored
        assert (written == scene.label - np.uint8(shift)).all()


def test_a_table_colours_maps_of_indices(
    scenes: list, tmp_path: Path
) -> None:
    """A class that the table does not have gets a colour of its own."""
    folder = tmp_path / 'a folder'
    FORMATS['label maps'].write(folder, scenes)
    (folder / 'label_colors.txt').write_text('1 2 3 class_2\n')
    cfg = Config.fromfile(make(order(folder, tmp_path / 'p.py'), CPU).config)
    assert tuple(cfg.metainfo['palette'][1]) == (1, 2, 3)
    assert tuple(cfg.metainfo['palette'][0]) == colours(1)[0]


def maps_of(done: Done) -> list:
    return sorted((done.config.with_suffix('') / 'maps').rglob('*.png'))


def test_polygons_become_maps_where_asked(
    scenes: list, tmp_path: Path
) -> None:
    done = made('coco', scenes, tmp_path, task='seg')
    cfg = Config.fromfile(done.config)
    assert tuple(cfg.classes) == ('background', *CLASSES)
    by_name = {path.stem: path for path in maps_of(done)}
    for scene in scenes:
        written = cv2.imread(str(by_name[scene.name]), cv2.IMREAD_UNCHANGED)
        assert (written == scene.label).all()


def test_a_project_is_written_whole_or_not_at_all(
    scenes: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError('no space left')

    monkeypatch.setattr('mmconvnext.data.project._publish', fail)
    with pytest.raises(OSError, match='no space'):
        made('coco', scenes, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['a folder']


def test_nothing_is_overwritten_unasked(scenes: list, tmp_path: Path) -> None:
    done = made('coco', scenes, tmp_path)
    with pytest.raises(ValueError, match='exists; --overwrite replaces'):
        make(order(tmp_path / 'a folder', done.config), CPU)
    make(order(tmp_path / 'a folder', done.config, overwrite=True), CPU)
    (tmp_path / 'mine/project.json').unlink()
    with pytest.raises(ValueError, match='not written by this command'):
        make(order(tmp_path / 'a folder', done.config, overwrite=True), CPU)


def test_the_folder_itself_is_no_place_for_a_project(
    scenes: list, tmp_path: Path
) -> None:
    FORMATS['coco'].write(tmp_path, scenes)
    with pytest.raises(ValueError, match='is inside'):
        make(order(tmp_path, tmp_path / 'mine.py'), CPU)


def test_a_project_can_move_with_its_labels(
    scenes: list, tmp_path: Path
) -> None:
    done = made('label maps', scenes, tmp_path)
    place = tmp_path / 'elsewhere'
    place.mkdir()
    for path in (done.config, done.config.with_suffix('')):
        path.rename(place / path.name)
    assert check(Config.fromfile(place / 'mine.py')) == []


def test_the_division_is_seeded_and_keeps_every_class(
    tmp_path: Path,
) -> None:
    scenes = draw(20)
    rare = scenes[0].things[0]._replace(name='rare')
    for i in (3, 11):
        scenes[i].things.append(rare)
    done = made('labelme', scenes, tmp_path)
    again = make(
        order(tmp_path / 'a folder', tmp_path / 'again.py'), CPU
    ).config.with_suffix('')
    labels = done.config.with_suffix('')
    for part in ('train', 'val'):
        content = read_json(labels / f'{part}.json')
        assert content == read_json(again / f'{part}.json')
        number = {row['category_id'] for row in content['annotations']}
        assert len(number) == 4, part


def test_classes_are_chosen_renamed_and_ordered(
    scenes: list, tmp_path: Path
) -> None:
    wishes = Wishes(('disc', 'house'), '', {'tent': 'house', 'box': 'house'})
    done = made('coco', scenes, tmp_path, wishes=wishes)
    content = read_json(tmp_path / 'mine/train.json')
    assert [c['name'] for c in content['categories']] == ['disc', 'house']
    with pytest.raises(ValueError, match=r'--classes nowhere: no label'):
        make(
            order(
                tmp_path / 'a folder',
                done.config,
                wishes=Wishes(('nowhere',)),
                overwrite=True,
            ),
            CPU,
        )


ZEROS = {'': ('ignored', 3), 'class': ('a class', 4), 'ignore': ('ignored', 3)}


@pytest.mark.parametrize('zero', ZEROS)
def test_label_zero_is_a_question_with_an_answer(
    zero: str, scenes: list, tmp_path: Path
) -> None:
    wishes = Wishes(zero=zero)
    done = made('label maps', scenes, tmp_path, wishes=wishes)
    words, number = ZEROS[zero]
    (choice,) = [c for c in done.settings.reasons if c.name == 'label 0']
    assert choice.value.endswith(words)
    assert ('--zero' in choice.reason) and ('ADE20K' in choice.reason) == (
        not zero
    )
    cfg = Config.fromfile(done.config)
    assert cfg.model.decode_head.num_classes == number


def test_one_class_gets_a_background(tmp_path: Path) -> None:
    scenes = [
        scene._replace(label=np.minimum(scene.label, 1)) for scene in draw()
    ]
    done = made('label maps', scenes, tmp_path)
    cfg = Config.fromfile(done.config)
    assert tuple(cfg.classes) == ('background', 'class_1')
    assert cfg.model.decode_head.num_classes == 2
    assert check(cfg) == []


def binary(scenes: list) -> list:
    return [
        scene._replace(label=255 * np.minimum(scene.label, 1))
        for scene in scenes
    ]


def test_masks_of_0_and_255(scenes: list, tmp_path: Path) -> None:
    wishes = Wishes(('thing',))
    done = made('label maps', binary(scenes), tmp_path, wishes=wishes)
    cfg = Config.fromfile(done.config)
    assert tuple(cfg.classes) == ('background', 'thing')
    values = np.unique(cv2.imread(str(maps_of(done)[0]), -1))
    assert values.tolist() == [0, 1]


def test_settings_follow_the_data_and_the_machine(
    scenes: list, tmp_path: Path
) -> None:
    gpu = Machine('H100', 70 << 30, True, True, 16)
    folder = tmp_path / 'a folder'
    FORMATS['coco'].write(folder, scenes)
    done = make(order(folder, tmp_path / 'mine.py', arch='tiny'), gpu)
    cfg = Config.fromfile(done.config)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert 'fcmae' in cfg.model.backbone.init_cfg.checkpoint
    assert cfg.optim_wrapper.paramwise_cfg.decay_rate == 0.95
    # objects of some 23 pixels
    assert cfg.model.rpn_head.anchor_generator.scales == [4]
    small = make(order(folder, tmp_path / 'cpu.py', arch='tiny'), CPU)
    cfg = Config.fromfile(small.config)
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert 'init_cfg' not in cfg.model.backbone
    assert cfg.model.neck.out_channels == 64
    assert small.settings.batch <= done.settings.batch


def test_every_setting_has_a_reason_in_the_config(
    scenes: list, tmp_path: Path
) -> None:
    done = made('voc', scenes, tmp_path)
    text = done.config.read_text(encoding='utf-8')
    for choice in done.settings.reasons:
        assert f'# {choice.name}: ' in text and choice.reason
    rows = [row for row in text.splitlines() if str(tmp_path) not in row]
    assert max(map(len, rows)) <= 79
    assert len(text.splitlines()) < 150


def test_next_commands_name_the_config(scenes: list, tmp_path: Path) -> None:
    done = made('voc', scenes, tmp_path)
    commands = next_commands(done)
    assert all(str(done.config) in line for line in commands)


def test_predict_finds_the_maps_of_mixed_endings(
    scenes: list, tmp_path: Path
) -> None:
    done = made('label maps', scenes, tmp_path)
    cfg = Config.fromfile(done.config)
    init_default_scope(cfg.default_scope)
    images = tmp_path / 'a folder/images/validation'
    # Both the folder of one split and the whole folder may be predicted.
    for root in (images, tmp_path / 'a folder'):
        labels = scorer(cfg, '', root)
        for path in sorted(images.iterdir()):
            found = Path(labels.info(path)['seg_map_path'])
            assert found.name == f'{path.name}.png'
        with pytest.raises(ValueError, match='no label map at'):
            labels.info(images / 'gone.jpg')
