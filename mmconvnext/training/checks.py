"""What a resumed run keeps of its checkpoint, and whether that can end well.

mmengine restores optimiser and schedules from the checkpoint, whatever the
config says by now; batch size and length of the run are the config's.
"""

from __future__ import annotations

import ast
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Sequence

from mmengine.config import Config

from ..configs import as_list, bare_type


class Setting(NamedTuple):
    """A setting by its path in a config, and whose value a run resumes with.

    Everything at or below the path counts.
    """

    path: str
    what: str
    winner: str


# How train_cfg gives the length of a run.
LENGTHS = ('max_epochs', 'max_iters')
CHECKPOINT, CONFIG = "the checkpoint's", "the config's"
# The first row that a setting is below decides.
SETTINGS = (
    Setting('optim_wrapper.optimizer', 'optimiser', CHECKPOINT),
    Setting('optim_wrapper.paramwise_cfg', 'optimiser', CHECKPOINT),
    Setting('optim_wrapper.constructor', 'optimiser', CHECKPOINT),
    Setting('optim_wrapper', 'optimiser step', CONFIG),
    Setting('param_scheduler', 'schedule', CHECKPOINT),
    Setting('train_cfg', 'length of the run', CONFIG),
    Setting('train_dataloader.batch_size', 'batch size', CONFIG),
    Setting('randomness.seed', 'seed', CHECKPOINT),
    Setting('auto_scale_lr', 'learning rate', CHECKPOINT),
)


def check_resume(
    cfg: Config, raw: Mapping[str, Any], max_iters: int, epoch_length: int
) -> List[str]:
    """Compare a config with the checkpoint that a run is resumed from.

    Args:
        cfg: of the run.
        raw: what mmengine stored in the checkpoint.
        max_iters: iterations of the whole run, as the config has it now.
        epoch_length: iterations of an epoch, likewise.

    Returns:
        A line for each setting that differs: both values, and which is used.

    Raises:
        ValueError: for a file that no run can be resumed from; for another
            type of optimiser or schedule, whose state would be put into the
            wrong place; for a run that counts epochs instead of iterations,
            or ends earlier than the checkpoint; and where the checkpoint's
            schedule ends before the run does: the rest would train at its
            last rate, mostly 0.
    """
    meta = raw.get('meta') or {}
    lacking = [key for key in ('optimizer', 'message_hub') if key not in raw]
    lacking += [f'meta.{key}' for key in ('epoch', 'iter') if key not in meta]
    if lacking:
        raise ValueError(
            f'a run cannot be resumed from it: it has no '
            f'{", ".join(lacking)}; to start from its weights alone, use '
            f'--cfg-options load_from=FILE'
        )
    _check_length(cfg, meta, max_iters)
    ends = [
        row['end'] * (epoch_length if row.get('by_epoch', True) else 1)
        for row in _schedulers(raw.get('param_schedulers'))
    ]
    if ends and max(ends) < max_iters:
        raise ValueError(
            f'the schedule in the checkpoint ends after {max(ends)} '
            f'iterations, the run after {max_iters}, the rest at its last '
            f'rate: resuming does not stretch a schedule. Start a new run '
            f'from the weights (--cfg-options load_from=FILE), or end where '
            f'the schedule does'
        )
    return list(_differences(cfg, meta.get('cfg') or ''))


def _check_length(cfg: Config, meta: Mapping[str, Any], end: int) -> None:
    """Refuse to go on counting in another unit, or past the end."""
    old = read_literals(meta.get('cfg') or '').get('train_cfg') or {}
    units = {key: key.partition('_')[2] for key in LENGTHS}
    was, now = (
        next((units[key] for key in units if side.get(key)), '')
        for side in (old, cfg.get('train_cfg') or {})
    )
    if was and now and was != now:
        raise ValueError(
            f'it is of a run that counts {was}, the config counts {now}. '
            f'Start a new run from the weights (--cfg-options load_from=FILE)'
        )
    done = meta['epoch'] if now == 'epochs' else meta['iter']
    end = cfg.train_cfg['max_epochs'] if now == 'epochs' else end
    if done > end:
        raise ValueError(
            f'it has done {done} {now or "iters"}, and the run ends after '
            f'{end}: nothing is left to train'
        )


def _schedulers(state: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the states of schedulers of the learning rate."""
    if isinstance(state, Mapping) and 'end' not in state:
        for value in state.values():
            yield from _schedulers(value)
        return
    for row in as_list(state):
        if row.get('param_name', 'lr') == 'lr' and 'end' in row:
            yield row


def _differences(cfg: Config, text: str) -> Iterator[str]:
    """Yield a line per setting that differs from the stored config."""
    old = _flat(read_literals(text))
    new = _flat(cfg.to_dict())
    if not old:
        yield 'the checkpoint has no readable config to compare with'
        return
    for path in sorted(old.keys() | new.keys()):
        row = next((r for r in SETTINGS if _is_below(path, r.path)), None)
        stored, now = (_comparable(path, side) for side in (old, new))
        if row is None or repr(stored) == repr(now):
            continue
        text = f'{path} is {stored} in the checkpoint, {now} in the config'
        if path.endswith('.type') and row.winner == CHECKPOINT:
            raise ValueError(
                f'a run is resumed with the types it had, but {text}. Start '
                f'a new run from the weights (--cfg-options load_from=FILE)'
            )
        yield f'{row.what}: {text}; {row.winner} is used'


def _comparable(path: str, side: Mapping[str, Any]) -> Any:
    value = side.get(path, 'not set')
    # A class in a config is a dotted name in what is stored of it.
    return bare_type(value) if path.endswith('.type') else value


def _is_below(path: str, start: str) -> bool:
    return f'{path}.'.startswith(f'{start}.')


def _flat(node: Any, path: str = '') -> Dict[str, Any]:
    """Put nested dicts and lists under dotted paths."""
    if isinstance(node, Mapping):
        items: Sequence = list(node.items())
    elif isinstance(node, (list, tuple)) and any(
        isinstance(each, Mapping) for each in node
    ):
        items = list(enumerate(node))
    else:
        return {path: list(node) if isinstance(node, tuple) else node}
    found: Dict[str, Any] = {}
    for key, value in items:
        found.update(_flat(value, f'{path}.{key}' if path else str(key)))
    return found


def read_literals(text: str) -> Dict[str, Any]:
    """Read the assignments of a config that mmengine wrote; run nothing.

    A checkpoint comes from anywhere, so that its config is never executed.
    A setting that would call something is left out.
    """
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return {}
    found = {}
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(
            node.targets[0], ast.Name
        ):
            try:
                found[node.targets[0].id] = _literal(node.value)
            except ValueError:
                continue
    return found


def _literal(node: ast.AST) -> Any:
    if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'dict':
        pairs = [(k.arg, k.value) for k in node.keywords]
        return {key: _literal(value) for key, value in pairs if key}
    if isinstance(node, ast.Dict):
        keys = [_literal(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_literal, node.values)))
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(each) for each in node.elts]
    if isinstance(node, (ast.Attribute, ast.Name)):
        return ast.unparse(node)  # a class is stored by its dotted name
    return ast.literal_eval(node)
