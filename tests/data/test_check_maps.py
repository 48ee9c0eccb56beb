"""Label maps that are wrong in every way that has been met."""

from pathlib import Path
from typing import Callable, NamedTuple, Tuple

import numpy as np
import pytest
from labelled import (
    CLASSES,
    SIZE,
    draw_maps,
    image,
    label,
    seg_config,
    write,
)

from mmconvnext.data import DataError, check, demand
from mmconvnext.data.findings import Finding, errors

FIRST = 'annotations/training/0.png'


class Case(NamedTuple):
    """A folder, the settings that read it, and what has to be said."""

    values: Tuple[int, ...]
    words: Tuple[str, ...]
    harm: Callable[[Path], object] = lambda root: None
    options: dict = {}
    severity: str = 'error'


def rename(old: str, new: str) -> Callable[[Path], object]:
    def harm(root: Path) -> None:
        for path in root.rglob(f'*{old}'):
            path.rename(path.with_name(path.name.replace(old, new)))

    return harm


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:400])


def turn(root: Path) -> None:
    """Give an image EXIF orientation 6: training sees it turned."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    path = root / 'images/training/0.jpg'
    Image.fromarray(image(0)).save(path, exif=exif)


def as_float(path: Path, value: float) -> None:
    """Write a map of 0 and a value as 32-bit floats, under the same name."""
    from PIL import Image

    values = np.where(label(0, 1) > 0, value, 0).astype(np.float32)
    Image.fromarray(values).save(path, format='TIFF')


def as_jpeg(root: Path) -> None:
    for path in root.rglob('*.png'):
        write(path.with_suffix('.jpg'), label(0, 1))
        path.unlink()


def write_list(root: Path, text: str) -> None:
    (root / 'some.txt').write_text(text, encoding='utf-8')


CASES = {
    'masks of 0 and 255': Case(
        (0, 255), ('values 0, 255', 'class 0 is all', 'at least two classes')
    ),
    'the same, zero reduced': Case(
        (0, 255),
        ('values 0, 255', 'nothing that is left', 'reduce_zero_label=False'),
        options=dict(reduce_zero_label=True),
    ),
    'one class': Case(
        (1, 0),
        ('1 is no class', "('background', 'road')", 'num_classes=2'),
        options=dict(classes=('road',)),
    ),
    'one class and zero reduced': Case(
        (0, 1),
        ('class 0 is all that is left', "('background', 'thing')"),
        options=dict(classes=('road',), reduce_zero_label=True),
    ),
    'all of one value': Case((1, 1), ('class 1 is all',)),
    'out of range': Case(
        (0, 1, 4), (FIRST, '4 is no class', '0 to 1', 'name 5 classes')
    ),
    'out of range in one map': Case(
        (0, 1),
        ('training/2.png', '7 is no class'),
        lambda root: write(
            root / 'annotations/training/2.png', label(0, 1, 7)
        ),
    ),
    'zero not reduced': Case(
        (0, 1, 2), ('2 is no class', 'reduce_zero_label=True')
    ),
    'zero reduced by mistake': Case(
        (0, 1, 2),
        ('label 0 is ignored', "trained as 'ground'"),
        options=dict(
            classes=(*CLASSES, 'sky'),
            reduce_zero_label=True,
        ),
        severity='warning',
    ),
    'a colour map': Case(
        (0, 1),
        (FIRST, 'a colour image with', 'new_project.py'),
        lambda root: write(root / FIRST, image(0)),
    ),
    'another size': Case(
        (0, 1),
        (FIRST, '32 x 24', '64 x 48'),
        lambda root: write(root / FIRST, label(0, 1, size=(24, 32))),
    ),
    'an image that EXIF turns': Case(
        (0, 1), (FIRST, '64 x 48', 'expected 48 x 64'), turn
    ),
    '16 bits': Case(
        (0, 300), (FIRST, 'values from 0 to 300', 'lowest 8 bits')
    ),
    'shares of a class': Case(
        (0, 1),
        (FIRST, 'values between whole numbers, 0.0, 0.5'),
        lambda root: as_float(root / FIRST, 0.5),
    ),
    'not a number': Case(
        (0, 1),
        (FIRST, 'values between whole numbers, 0.0, nan'),
        lambda root: as_float(root / FIRST, float('nan')),
    ),
    'infinite': Case(
        (0, 1),
        (FIRST, 'values from 0.0 to inf'),
        lambda root: as_float(root / FIRST, float('inf')),
    ),
    'colour with alpha': Case(
        (0, 1),
        (FIRST, 'a colour image with 1 colours, (7, 7, 7, 7)'),
        lambda root: write(root / FIRST, np.full((*SIZE, 4), 7, np.uint8)),
    ),
    'as JPEG': Case(
        (0, 1),
        ('label maps as .jpg', 'PNG'),
        as_jpeg,
        options=dict(seg_map_suffix='.jpg'),
        severity='warning',
    ),
    'a list with a blank line': Case(
        (0, 1),
        ('some.txt', '1 of 3 images it lists', "training/.jpg'", 'no blank'),
        lambda root: write_list(root, '0\n\n1\n'),
        options=dict(ann_file='some.txt'),
    ),
    'a list with a byte order mark': Case(
        (0, 1),
        ('some.txt', '1 of 2 images it lists', r"\ufeff0.jpg'"),
        lambda root: write_list(root, '\ufeff0\n1\n'),
        options=dict(ann_file='some.txt'),
    ),
    'a list with endings': Case(
        (0, 1),
        ('some.txt', '2 of 2 images it lists', "0.jpg.jpg'", "without '.jpg'"),
        lambda root: write_list(root, '0.jpg\n1.jpg\n'),
        options=dict(ann_file='some.txt'),
    ),
    'an empty list': Case(
        (0, 1),
        ('some.txt', 'a list without a name'),
        lambda root: write_list(root, ''),
        options=dict(ann_file='some.txt'),
    ),
    'classes of one name': Case(
        (0, 1),
        ('train_dataloader', 'classes of one name: road'),
        options=dict(classes=('road', 'road')),
    ),
    'a class never seen': Case(
        (0, 1),
        ('no pixel of sky',),
        options=dict(classes=(*CLASSES, 'sky')),
        severity='warning',
    ),
    'images without maps': Case(
        (0, 1),
        ('no label map for 1 of 3 images: 0.jpg',),
        lambda root: (root / FIRST).unlink(),
    ),
    'maps without images': Case(
        (0, 1),
        ('1 label maps without an image: lost.png',),
        lambda root: write(
            root / 'annotations/training/lost.png', label(0, 1)
        ),
        severity='warning',
    ),
    'maps of another suffix': Case(
        (0, 1),
        ('no label map for 3 of 3', "seg_map_suffix='_mask.png'"),
        rename('.png', '_mask.png'),
    ),
    'images in capitals': Case(
        (0, 1),
        ('no image that ends in .jpg; 3 x .JPG', "img_suffix='.JPG'"),
        rename('.jpg', '.JPG'),
    ),
    'some in capitals': Case(
        (0, 1),
        ('1 images that the config passes over: 3.JPG',),
        lambda root: write(root / 'images/training/3.JPG', image(3)),
        severity='warning',
    ),
    'an empty validation folder': Case(
        (0, 1),
        ('images/validation', 'no image at all'),
        lambda root: [
            path.unlink() for path in root.rglob('validation/*.jpg')
        ],
    ),
    'no validation folder': Case(
        (0, 1),
        ('images/validation', 'no folder'),
        lambda root: (root / 'images/validation').rename(root / 'gone'),
    ),
    'a damaged image': Case(
        (0, 1),
        ('images/training/1.jpg', 'damaged'),
        lambda root: cut(root / 'images/training/1.jpg'),
    ),
    'a damaged map': Case(
        (0, 1),
        ('annotations/training/1.png', 'whole image'),
        lambda root: (root / 'annotations/training/1.png').write_bytes(b'x'),
    ),
    'a single name without a comma': Case(
        (0, 1),
        ("classes='road', a string", 'with a comma'),
        options=dict(classes='road'),
    ),
    'too few classes in a data set that has its own': Case(
        (0, 1),
        ('not a subset of classes', 'edit the data set'),
        options=dict(type='ADE20KDataset', classes=('wall', 'nothing')),
    ),
}


def prepare(case: Case, root: Path):
    draw_maps(root, *case.values)
    case.harm(root)
    options = dict(case.options)
    kind = options.pop('type', None)
    cfg = seg_config(root, **options)
    if kind:
        for loader in ('train_dataloader', 'val_dataloader'):
            cfg[loader].dataset.type = kind
    return cfg


def named(findings: list, words: Tuple[str, ...]) -> list:
    return [f for f in findings if all(word in str(f) for word in words)]


@pytest.mark.parametrize('name', CASES)
def test_names_file_values_and_fix(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    cfg = prepare(case, tmp_path)
    findings = check(cfg)
    found = named(findings, case.words)
    assert found, '\n'.join(map(str, findings))
    assert found[0].severity == case.severity
    assert all(all(each) for each in found), found
    if case.severity == 'error':
        with pytest.raises(DataError, match='fix: '):
            demand(cfg, ['train_dataloader', 'val_dataloader'])


RIGHT = {
    'two classes': ((0, 1), {}),
    'ignored pixels': ((0, 1, 255), {}),
    'zero reduced': ((0, 1, 2), dict(reduce_zero_label=True)),
    'whole floats': ((0, 1), {}, lambda root: as_float(root / FIRST, 1)),
    'a list': (
        (0, 1),
        dict(ann_file='some.txt'),
        lambda root: write_list(root, '2\r\n0\n'),
    ),
}


@pytest.mark.parametrize('name', RIGHT)
def test_says_nothing_of_data_that_is_right(name: str, tmp_path: Path) -> None:
    values, options, *changes = RIGHT[name]
    draw_maps(tmp_path, *values)
    for change in changes:
        change(tmp_path)
    assert check(seg_config(tmp_path, **options)) == []


def test_a_palette_is_read_as_indices(tmp_path: Path) -> None:
    from PIL import Image

    draw_maps(tmp_path, 0, 1)
    for path in tmp_path.rglob('*.png'):
        with Image.open(path) as grey:
            picture = Image.fromarray(np.asarray(grey), mode='P')
        picture.putpalette([9, 9, 9, 200, 0, 0])
        picture.save(path)
    assert check(seg_config(tmp_path)) == []


WRAPPERS = {
    'repeated': lambda inner: dict(
        type='RepeatDataset', times=3, dataset=inner
    ),
    'joined': lambda inner: dict(
        type='ConcatDataset', datasets=[inner, inner]
    ),
    'balanced, and repeated': lambda inner: dict(
        type='RepeatDataset',
        times=2,
        dataset=dict(
            type='ClassBalancedDataset', oversample_thr=0.1, dataset=inner
        ),
    ),
}


@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_looks_into_wrappers(wrapper: str, tmp_path: Path) -> None:
    draw_maps(tmp_path, 0, 1, 5)
    cfg = seg_config(tmp_path)
    loader = cfg.train_dataloader
    loader.dataset = WRAPPERS[wrapper](loader.dataset)
    (found,) = errors(check(cfg, ['train_dataloader']))
    assert '5 is no class' in found.found


def spelled(kind: str) -> object:
    """Name BaseSegDataset as configs may: with its scope, or as a class."""
    from mmseg.datasets import BaseSegDataset

    return {'scope': 'mmseg.BaseSegDataset', 'class': BaseSegDataset}[kind]


@pytest.mark.parametrize('kind', ['scope', 'class'])
def test_types_with_a_scope_or_as_classes(kind: str, tmp_path: Path) -> None:
    from mmseg.datasets.transforms import LoadAnnotations

    draw_maps(tmp_path, 0, 1, 5)
    cfg = seg_config(tmp_path)
    dataset = cfg.train_dataloader.dataset
    dataset.type = spelled(kind)
    step = {'scope': 'mmseg.LoadAnnotations', 'class': LoadAnnotations}[kind]
    dataset.pipeline[1].type = step
    (found,) = errors(check(cfg, ['train_dataloader']))
    assert '5 is no class' in found.found


def test_a_relative_data_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_maps(tmp_path / 'data/own', 0, 1, 5)
    monkeypatch.chdir(tmp_path)
    cfg = seg_config(Path('data/own'))
    (found,) = errors(check(cfg, ['val_dataloader']))
    assert found.file == 'data/own/annotations/validation/0.png'


def test_settings_that_disagree_about_zero(tmp_path: Path) -> None:
    draw_maps(tmp_path, 0, 1)
    cfg = seg_config(tmp_path)
    cfg.train_dataloader.dataset.pipeline[1].reduce_zero_label = True
    (found,) = errors(check(cfg, ['train_dataloader']))
    assert 'reduce_zero_label' in found.found and 'alone' in found.fix


def test_a_softmax_of_one_class(tmp_path: Path) -> None:
    draw_maps(tmp_path, 0, 1)
    found = errors(check(seg_config(tmp_path, classes=('road',))))
    (head,) = [each for each in found if 'decode_head' in each.file]
    assert 'the loss is 0 and the gradient 0' in head.found
    assert "('background', 'road')" in head.fix


@pytest.mark.parametrize('number', [1, 3])
def test_heads_of_another_number(number: int, tmp_path: Path) -> None:
    draw_maps(tmp_path, 0, 1)
    cfg = seg_config(tmp_path)
    head = cfg.model.decode_head
    cfg.model.auxiliary_head = [dict(head), dict(head, num_classes=number)]
    (found,) = errors(check(cfg))
    assert found.file.endswith('model.auxiliary_head[1]')
    assert found.found == f'num_classes={number}'
    # Data can be looked at before there is a model for it.
    assert check(cfg, model=False) == []


def test_a_sigmoid_of_one_output_is_right(tmp_path: Path) -> None:
    draw_maps(tmp_path, 0, 1)
    cfg = seg_config(tmp_path)
    cfg.model.decode_head.out_channels = 1
    (found,) = check(cfg)
    assert 'softmax' in found.found
    cfg.model.decode_head.loss_decode.use_sigmoid = True
    assert check(cfg) == []


# MMSegmentation's release: the values of avg_non_ignore with which it cannot
# weight classes where a pixel is ignored. A new release belongs here.
FAILS = {'1.2.2': (False, True), '1.4.2': (True,)}


@pytest.mark.parametrize('avg_non_ignore', [False, True])
def test_a_host_that_cannot_weight_classes(
    avg_non_ignore: bool, tmp_path: Path
) -> None:
    import mmseg

    draw_maps(tmp_path, 0, 1)
    cfg = seg_config(tmp_path)
    loss = cfg.model.decode_head.loss_decode
    loss.update(class_weight=[1.0] * len(CLASSES))
    loss.update(avg_non_ignore=avg_non_ignore)
    found = check(cfg)
    if avg_non_ignore not in FAILS[mmseg.__version__]:
        assert not found
        return
    (finding,) = found
    assert finding.severity == 'warning'
    assert finding.file.endswith('model.decode_head.loss_decode')
    assert f'MMSegmentation {mmseg.__version__} cannot' in finding.found
    assert 'mmconvnext.WeightedCrossEntropyLoss' in finding.fix
    loss.pop('avg_non_ignore')
    loss.update(type='mmconvnext.WeightedCrossEntropyLoss')
    assert check(cfg) == []


def test_the_sample_is_spread_over_all_maps(tmp_path: Path) -> None:
    draw_maps(tmp_path, 0, 1, count=9)
    path = tmp_path / 'annotations/training/8.png'
    write(path, label(0, 1, 9))
    found = check(seg_config(tmp_path), ['train_dataloader'], sample=3)
    assert 'in 3 of 9 maps: 9 is no class' in found[0].found


def test_says_what_it_does_not_check(tmp_path: Path) -> None:
    draw_maps(tmp_path, 0, 1)
    cfg = seg_config(tmp_path)
    cfg.train_dataloader.dataset.pipeline[1].type = 'LoadDepthAnnotation'
    (found,) = check(cfg)
    assert found.severity == 'note' and 'not checked' in found.fix


def test_a_class_of_its_own_is_no_error(tmp_path: Path) -> None:
    from mmengine.registry import DATASETS

    class Plain:
        def __init__(self, pipeline: list) -> None:
            self.pipeline = pipeline

    with DATASETS.switch_scope_and_registry('mmseg') as registry:
        registry.register_module(module=Plain, force=True)
    cfg = seg_config(tmp_path)
    cfg.train_dataloader.dataset = dict(type='Plain', pipeline=[])
    (found,) = check(cfg, ['train_dataloader'])
    assert found.severity == 'note' and 'Plain' in found.found


def test_an_object_store_is_not_looked_into(tmp_path: Path) -> None:
    cfg = seg_config(tmp_path)
    cfg.train_dataloader.dataset.data_root = 's3://bucket/data'
    (found,) = check(cfg, ['train_dataloader'])
    assert found.severity == 'note' and 'not checked' in found.fix


MODES = {'warn': 1, 'off': 0}


@pytest.mark.parametrize('mode', MODES)
def test_a_config_can_ask_for_less(mode: str, tmp_path: Path) -> None:
    draw_maps(tmp_path, 0, 1, 5)
    cfg = seg_config(tmp_path)
    cfg.data_check = mode
    said = []
    demand(cfg, ['train_dataloader'], said.append)
    assert len(said) == MODES[mode]
    cfg.data_check = 'no'
    with pytest.raises(ValueError, match=r"'stop', 'warn', 'off'"):
        demand(cfg, ['train_dataloader'])


def test_only_the_first_process_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_maps(tmp_path, 0, 1, 5)
    monkeypatch.setenv('RANK', '1')
    demand(seg_config(tmp_path), ['train_dataloader'])


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.tif', '.webp'])
@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
def test_sizes_are_those_that_training_sees(
    suffix: str, orientation: int, tmp_path: Path
) -> None:
    from PIL import Image

    from mmconvnext.data.images import loaded_size
    from mmconvnext.files import read_image

    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f'image{suffix}'
    Image.fromarray(image(0)).save(path, exif=exif)
    height, width = read_image(path).shape[:2]
    assert loaded_size(str(path)) == (width, height)


def test_a_finding_is_one_line() -> None:
    found = Finding('error', 'a.png', 'x', 'y', 'z')
    assert str(found) == 'error: a.png: found x; expected y; fix: z'


def test_images_of_float_pixels_are_refused(tmp_path: Path) -> None:
    """Pillow opens them; OpenCV fails in the middle of a step."""
    draw_maps(tmp_path, 0, 1)
    as_float(tmp_path / 'images/training/1.jpg', 0.5)
    (found,) = errors(check(seg_config(tmp_path)))
    assert found.file.endswith('images/training/1.jpg')
    assert 'of the kind F (TIFF)' in found.found


def test_images_that_only_the_pipeline_reads(tmp_path: Path) -> None:
    """Five channels of 16 bits, by mmcv's other decoder."""
    tifffile = pytest.importorskip('tifffile')
    draw_maps(tmp_path, 0, 1)
    for path in (tmp_path / 'images').rglob('*.jpg'):
        tifffile.imwrite(path, np.zeros((*SIZE, 5), np.uint16))
    cfg = seg_config(tmp_path)
    assert errors(check(cfg))  # by the usual reader
    for loader in ('train_dataloader', 'val_dataloader'):
        cfg[loader].dataset.pipeline[0].update(
            imdecode_backend='tifffile', color_type='unchanged'
        )
    assert check(cfg) == []
    (tmp_path / 'images/training/1.jpg').write_bytes(b'no')
    (found,) = errors(check(cfg))
    assert 'not read by this pipeline' in found.found


CONSTANT = {
    'nothing said': None,
    'cross entropy': dict(type='mmseg.CrossEntropyLoss'),
    'one of two': [
        dict(type='DiceLoss'),
        dict(type='CrossEntropyLoss', use_sigmoid=False),
    ],
    'Lovasz of classes': dict(type='LovaszLoss', reduction='none'),
    'Tversky': dict(type='TverskyLoss'),
    'hard examples': dict(type='OhemCrossEntropy'),
}
LEARNS = {
    'cross entropy': dict(type='CrossEntropyLoss', use_sigmoid=True),
    'Dice': dict(type='DiceLoss'),
    'focal': dict(type='FocalLoss', use_sigmoid=True),
    'Lovasz of two': dict(type='LovaszLoss', loss_type='binary'),
}


@pytest.mark.parametrize(
    ('loss', 'constant'),
    [
        *((loss, True) for loss in CONSTANT.values()),
        *((loss, False) for loss in LEARNS.values()),
    ],
    ids=[*CONSTANT, *(f'{name}, a sigmoid' for name in LEARNS)],
)
def test_losses_of_one_output(
    loss: object, constant: bool, tmp_path: Path
) -> None:
    """In an auxiliary head too, and where the head's default is taken."""
    draw_maps(tmp_path, 0, 1)
    cfg = seg_config(tmp_path)
    head = dict(type='FCNHead', num_classes=2, out_channels=1)
    if loss:
        head['loss_decode'] = loss
    cfg.model.auxiliary_head = [head]
    found = errors(check(cfg))
    assert bool(found) == constant
    assert all('auxiliary_head[0]' in each.file for each in found)


def test_a_mask_transformer_of_one_class(tmp_path: Path) -> None:
    draw_maps(tmp_path, 0, 255)
    cfg = seg_config(tmp_path, classes=('road',))
    cfg.model.decode_head = dict(
        type='Mask2FormerHead', num_classes=1, loss_cls=dict(type='Own')
    )
    assert not any('decode_head' in each.file for each in check(cfg))


@pytest.mark.parametrize(
    ('classes', 'severity'),
    [(CLASSES[::-1], 'error'), (('ground', 'car'), 'warning')],
)
def test_other_classes_in_validation(
    classes: tuple, severity: str, tmp_path: Path
) -> None:
    draw_maps(tmp_path, 0, 1)
    cfg = seg_config(tmp_path)
    cfg.val_dataloader.dataset.metainfo = dict(classes=classes)
    (found,) = check(cfg)
    assert found.severity == severity
    assert found.file.startswith('val_dataloader')
    assert 'ground, block, in the order of train' in found.expected
