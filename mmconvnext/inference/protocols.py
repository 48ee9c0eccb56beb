"""How a model is tested: named protocols, test-time augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional, Sequence

from mmengine.config import Config, ConfigDict


def use_tta(cfg: Config) -> None:
    """Wrap the model and exchange the pipeline for the augmenting one."""
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        raise ValueError(
            f'--tta: {cfg.filename} has no tta_model and tta_pipeline'
        )
    if cfg.tta_model.type == 'DetTTAModel':
        # It merges boxes and refuses masks.
        cfg.model.roi_head.mask_head = None
        cfg.test_evaluator.metric = 'bbox'
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def use_protocol(cfg: Config, name: str) -> None:
    """Set mode, scales and flip to a row of the config's ``protocols``.

    Raises:
        ValueError: for a name or a mode that the config does not have.
    """
    known = cfg.get('protocols') or {}
    if name not in known:
        raise ValueError(
            f'--protocol {name}: {cfg.filename} has '
            f'{", ".join(known) or "no protocols"}'
        )
    row = known[name]
    if row.mode == 'slide' and 'crop_size' not in cfg.model.test_cfg:
        raise ValueError(
            f'--protocol {name}: mode slide needs crop_size and stride in '
            f'model.test_cfg of {cfg.filename}'
        )
    cfg.model.test_cfg.mode = row.mode
    if row.flip or tuple(row.ratios) != (1.0,):
        cfg.tta_pipeline = augmenting(
            cfg.test_dataloader.dataset.pipeline, row.ratios, row.flip
        )
        use_tta(cfg)


def augmenting(
    pipeline: Sequence[dict], ratios: Sequence[float], flip: bool
) -> List[dict]:
    """Turn a test pipeline into one that gives every scale, flipped or not.

    Scales are ratios of the pipeline's own, not of the image's size.
    """
    at = [step['type'] for step in pipeline].index('Resize')
    before, resize, after = pipeline[:at], pipeline[at], pipeline[at + 1 :]
    scales = [
        dict(resize, scale=tuple(int(side * r) for side in resize['scale']))
        for r in ratios
    ]
    flips = [
        dict(type='RandomFlip', prob=p, direction='horizontal')
        for p in ([0.0, 1.0] if flip else [0.0])
    ]
    steps = [scales, flips, *([step] for step in after)]
    return [*before, dict(type='TestTimeAug', transforms=steps)]


def describe(cfg: Config, name: Optional[str]) -> str:
    """Say in a line how the model is tested."""
    tta = 'module' in cfg.model
    model = cfg.model.module if tta else cfg.model
    words = [name or 'as configured']
    if 'roi_head' in model:
        words.append('boxes only' if tta else 'boxes and masks')
    else:
        words.append(_windows(model.test_cfg))
    steps = cfg.test_dataloader.dataset.pipeline
    if tta:
        choices = steps[-1]['transforms']
        words.append(f'flip {"on" if len(choices[1]) > 1 else "off"}')
        resizes = choices[0]
    else:
        words.append('flip off')
        resizes = [step for step in steps if step['type'] == 'Resize']
    scales = [f'{w}x{h}' for w, h in (step['scale'] for step in resizes)]
    words.append(f'scales {" ".join(scales) or "of the image"}')
    return ', '.join(words)


def _windows(test_cfg: ConfigDict) -> str:
    if test_cfg.mode == 'whole':
        return 'whole'
    sizes = ('x'.join(map(str, test_cfg[k])) for k in ('crop_size', 'stride'))
    return 'slide {} stride {}'.format(*sizes)


def write_predictions(cfg: Config, out: str) -> None:
    """Add what writes the predictions to the evaluator."""
    if out.endswith('.pkl'):
        evaluators = cfg.test_evaluator
        if not isinstance(evaluators, (list, tuple)):
            evaluators = [evaluators]
        dump = dict(type='DumpResults', out_file_path=out)
        cfg.test_evaluator = [*evaluators, dump]
    elif cfg.default_scope == 'mmseg':
        cfg.test_evaluator.update(output_dir=out, keep_results=True)
    else:
        raise ValueError(f'--out of a detector must end in .pkl, got {out}')


def write_pictures(cfg: Config, folder: str) -> None:
    """Draw every test image."""
    hook = cfg.default_hooks.visualization
    hook.update(draw=True, interval=1)
    if cfg.default_scope == 'mmdet':
        # joined to <work dir>/<time> by the hook unless it is absolute
        hook.test_out_dir = str(Path(folder).absolute())
    else:
        cfg.visualizer.save_dir = folder
