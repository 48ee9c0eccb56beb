"""Write the config of a project: short, readable, on the bases of configs/."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from .settings import DETECTIONS, Settings, reason_lines

WIDTH = 79
# Drop path of the fine-tuning recipes.
DROP_PATH = {'tiny': 0.2, 'base': 0.4, 'large': 0.4, 'huge': 0.4}
SMALL_DROP_PATH = 0.1


class Project(NamedTuple):
    """What a config says besides its settings.

    Attributes:
        name: of the config, without ending; its labels are in a folder of
            this name beside it.
        source: the user's folder, absolute.
        bases: folder of the base configs, absolute or relative to it.
        classes: in the order of their indices.
        palette: RGB of each.
        suffix: of all images, or empty.
        date: of today.
    """

    name: str
    source: str
    bases: str
    classes: Sequence[str]
    palette: Sequence[Tuple[int, int, int]]
    suffix: str
    date: str


def config_text(project: Project, settings: Settings) -> str:
    """Return the text of the config."""
    parts = [
        _head(project, settings),
        _bases(project, settings),
        _data_names(project),
        *(
            _segmentation(project, settings)
            if settings.task == 'seg'
            else _detection(settings)
        ),
        _optimiser(settings),
    ]
    return '\n'.join(part for part in parts if part) + '\n'


def _head(project: Project, settings: Settings) -> str:
    lines = [
        f'python tools/train.py {project.name}.py',
        '',
        f'Written by tools/new_project.py on {project.date} from',
        f'{project.source}',
        '',
        *reason_lines(settings),
    ]
    return '\n'.join(_comment(line) for line in lines)


def _comment(line: str) -> str:
    """Break a line of prose into comments; a path stays whole."""
    rows, row = [], '#'
    for word in line.split():
        if len(row) + 1 + len(word) > WIDTH and row != '#':
            rows.append(row)
            row = '#    '
        row += f' {word}'
    return '\n'.join([*rows, row])


def _bases(project: Project, settings: Settings) -> str:
    small = '_small' if settings.small else ''
    kind = 'seg' if settings.task == 'seg' else 'det'
    # Layer-wise decay is for weights that know something already.
    amp = settings.weights and settings.amp
    names = [
        ('upernet' if kind == 'seg' else 'mask_rcnn') + small,
        f'project_{kind}',
        f'runtime_{kind}' + ('' if amp else '_small'),
    ]
    rows = ''.join(
        f'    {f"{project.bases}/{name}.py"!r},\n' for name in names
    )
    return f'_base_ = [\n{rows}]'


def _data_names(project: Project) -> str:
    classes = ''.join(f'    {name!r},\n' for name in project.classes)
    palette = ''.join(f'    {tuple(row)},\n' for row in project.palette)
    labels = '{{ fileDirname }}/' + project.name
    return (
        '# Images stay where they are; labels and lists are beside this '
        'file.\n'
        f'data_root = {project.source!r}\n'
        f'labels = {labels!r}\n'
        "data_help = 'Made by tools/new_project.py; run it again if "
        "images moved.'\n"
        f'classes = (\n{classes})\n'
        f'palette = [\n{palette}]\n'
        'num_classes = len(classes)\n'
        'metainfo = dict(classes=classes, palette=palette)'
    )


def code(value: Any, indent: int = 0) -> str:
    """Write nested dicts as ``dict(key=value)``, a key a line."""
    if isinstance(value, Raw):
        return value.text
    if not isinstance(value, dict):
        return repr(value)
    pad = ' ' * (indent + 4)
    rows = [
        f'{pad}{key}={code(item, indent + 4)},\n'
        for key, item in value.items()
    ]
    flat = ', '.join(f'{key}={code(item)}' for key, item in value.items())
    if '\n' not in flat and indent + len(flat) < 52:
        return f'dict({flat})'
    return f'dict(\n{"".join(rows)}{" " * indent})'


class Raw(NamedTuple):
    """Text that goes into the config as it is."""

    text: str


def _backbone(settings: Settings) -> Dict:
    backbone: Dict[str, Any] = dict(
        type='mmconvnext.ConvNeXtV2', arch=Raw('arch')
    )
    if settings.weights:
        backbone['drop_path_rate'] = DROP_PATH.get(
            settings.arch, SMALL_DROP_PATH
        )
        weights = f'_base_.weights.{settings.weights}.format(arch=arch)'
        backbone['init_cfg'] = dict(type='Pretrained', checkpoint=Raw(weights))
    return backbone


def _segmentation(project: Project, settings: Settings) -> List[str]:
    head = dict(num_classes=Raw('num_classes'))
    model = dict(
        data_preprocessor=dict(size=settings.crop),
        backbone=_backbone(settings),
        decode_head=dict(in_channels=Raw('_base_.channels[arch]'), **head),
        auxiliary_head=dict(
            in_channels=Raw('_base_.channels[arch][2]'), **head
        ),
        test_cfg=dict(mode='whole'),
    )
    shared = dict(
        data_root=Raw('data_root'),
        metainfo=Raw('metainfo'),
        img_suffix=project.suffix,
        seg_map_suffix='.png',
        data_prefix=dict(img_path='', seg_map_path=Raw("labels + '/maps'")),
    )
    iters = settings.length
    warm = min(1500, max(20, iters // 20))
    every = -(-iters // (3 if settings.small else 5))
    return [
        f'arch = {settings.arch!r}',
        f'model = {code(model)}',
        f'scale = {settings.scale}',
        'train_pipeline = _base_.train_pipeline',
        'train_pipeline[2].update(scale=scale)',
        f'train_pipeline[3].update(crop_size={settings.crop})',
        *(_MILD if settings.small and not settings.weights else ()),
        'test_pipeline = _base_.test_pipeline',
        'test_pipeline[1].update(scale=scale)',
        f'_dataset = {code(shared)}',
        _loaders(settings, 'txt'),
        f'max_iters = {iters}',
        'param_scheduler = [\n'
        f'    {code(_warm_up(warm), 4)},\n'
        f'    {code(_decay(warm), 4)},\n]',
        f'train_cfg = dict(max_iters=max_iters, val_interval={every})',
        f'default_hooks = dict(checkpoint=dict(interval={every}))',
    ]


# A short training from random weights needs images as they are: it never gets
# to see what strong augmentation protects against.
_MILD = (
    'train_pipeline[2].update(ratio_range=(0.75, 1.5))',
    'train_pipeline[5].update(hue_delta=5)',
)


def _warm_up(steps: int) -> Dict:
    return dict(
        type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=steps
    )


def _decay(begin: int) -> Dict:
    return dict(
        type='PolyLR',
        power=1.0,
        begin=begin,
        end=Raw('max_iters'),
        eta_min=0.0,
        by_epoch=False,
    )


def _loaders(settings: Settings, ending: str) -> str:
    rows = []
    for split in ('train', 'val'):
        dataset = Raw(
            'dict(\n'
            '        **_dataset,\n'
            f"        ann_file=labels + '/{split}.{ending}',\n"
            f'        pipeline={"train" if split == "train" else "test"}'
            '_pipeline,\n    )'
        )
        batch = dict(batch_size=settings.batch) if split == 'train' else {}
        workers = dict(
            num_workers=settings.workers,
            persistent_workers=settings.workers > 0,
        )
        text = code(dict(**batch, **workers, dataset=dataset))
        rows.append(f'{split}_dataloader = {text}')
    return '\n'.join([*rows, 'test_dataloader = val_dataloader'])


def _detection(settings: Settings) -> List[str]:
    masks = settings.task == 'det'
    head = dict(num_classes=Raw('num_classes'))
    roi = dict(bbox_head=head, mask_head=head)
    if not masks:
        roi = dict(bbox_head=head, mask_roi_extractor=None, mask_head=None)
    model = dict(
        **({} if masks else dict(type='FasterRCNN')),
        **({} if masks else dict(data_preprocessor=dict(pad_mask=False))),
        backbone=_backbone(settings),
        neck=dict(in_channels=Raw('_base_.channels[arch]')),
        rpn_head=dict(anchor_generator=dict(scales=[settings.anchor])),
        roi_head=roi,
        **_per_image(settings),
    )
    shared = dict(
        data_root=Raw('data_root'),
        metainfo=Raw('metainfo'),
        data_prefix=dict(img=''),
    )
    metric = ['bbox', 'segm'] if masks else 'bbox'
    evaluator = dict(ann_file=Raw("labels + '/val.json'"), metric=metric)
    boxes_only = [
        'train_pipeline[1].update(with_mask=False)',
        'test_pipeline[2].update(with_mask=False)',
    ]
    return [
        f'arch = {settings.arch!r}',
        f'model = {code(model)}',
        f'scale = {settings.scale}',
        'train_pipeline = _base_.train_pipeline',
        'train_pipeline[2].update(scale=scale)',
        *_cropped(settings),
        'test_pipeline = _base_.test_pipeline',
        'test_pipeline[1].update(scale=scale)',
        *([] if masks else boxes_only),
        f'_dataset = {code(shared)}',
        _loaders(settings, 'json'),
        f'val_evaluator = {code(evaluator)}',
        'test_evaluator = val_evaluator',
        *_epochs(settings, masks),
    ]


def _cropped(settings: Settings) -> List[str]:
    """Cut training images, and leave out what the cut hardly left."""
    if not settings.crop:
        return []
    masks = settings.task == 'det'
    steps = [
        dict(
            type='RandomCrop',
            crop_size=settings.crop,
            recompute_bbox=masks,
            allow_negative_crop=True,
        ),
        dict(
            type='FilterAnnotations', min_gt_bbox_wh=(2, 2), by_mask=masks
        ),
    ]
    rows = ''.join(f'    {code(step, 4)},\n' for step in steps)
    return [f'train_pipeline[3:3] = [\n{rows}]']


def _per_image(settings: Settings) -> Dict[str, Any]:
    """Let the candidates of an image follow from its objects."""
    test: Dict[str, Any] = dict(rcnn=dict(max_per_img=settings.most))
    if settings.most > DETECTIONS:
        rpn = dict(nms_pre=1000, max_per_img=max(1000, 2 * settings.most))
        test = dict(rpn=rpn, **test)
    model: Dict[str, Any] = dict(test_cfg=test)
    if settings.small:
        sampler = dict(num=settings.samples)
        model['train_cfg'] = dict(rcnn=dict(sampler=sampler))
    return model


def _epochs(settings: Settings, masks: bool) -> List[str]:
    epochs = settings.length
    # The warm-up is short where there are few steps.
    warm = min(1000, max(20, settings.steps // 20))
    # On a CPU a validation costs about as much as an epoch of few images.
    every = -(-epochs // (4 if settings.small else 10))
    best = 'coco/segm_mAP' if masks else 'coco/bbox_mAP'
    hooks = dict(checkpoint=dict(interval=every, save_best=best))
    decay = _drops(epochs) if settings.weights else _cosine()
    return [
        f'max_epochs = {epochs}',
        'param_scheduler = [\n'
        f'    {code(_warm_up(warm), 4)},\n    {code(decay, 4)},\n]',
        f'train_cfg = dict(max_epochs=max_epochs, val_interval={every})',
        f'default_hooks = {code(hooks)}',
    ]


def _drops(epochs: int) -> Dict:
    """Lower the rate twice, as the recipes that start from weights do."""
    drops = sorted({round(epochs * 3 / 4), round(epochs * 11 / 12)})
    return dict(
        type='MultiStepLR',
        begin=0,
        end=Raw('max_epochs'),
        by_epoch=True,
        milestones=[drop for drop in drops if 0 < drop < epochs],
        gamma=0.1,
    )


def _cosine() -> Dict:
    """Lower the rate all along: random weights take a high one at first."""
    return dict(
        type='CosineAnnealingLR',
        begin=0,
        end=Raw('max_epochs'),
        eta_min=0.0,
        by_epoch=True,
        convert_to_iter_based=True,
    )


def _optimiser(settings: Settings) -> str:
    """Say what differs from the base: precision, or rates for weights."""
    rows: Dict[str, Any] = {}
    if settings.amp and not settings.weights:
        rows = dict(
            type='AmpOptimWrapper',
            dtype='bfloat16',
            loss_scale=dict(enabled=False),
        )
    elif settings.weights and not settings.amp:
        decay = dict(decay_rate=0.95, decay_type='layer_wise')
        if settings.task == 'seg':
            decay = dict(decay_rate=0.9, decay_type='stage_wise')
        rows = dict(optimizer=dict(lr=1e-4), paramwise_cfg=decay)
    elif settings.small and settings.task == 'seg' and not settings.weights:
        # With the mild augmentation above, twice the base's rate.
        rows = dict(optimizer=dict(lr=2e-3))
    scale = f'auto_scale_lr = dict(base_batch_size={settings.batch})'
    return f'optim_wrapper = {code(rows)}\n{scale}' if rows else scale
