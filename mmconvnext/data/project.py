"""From a folder of images and labels to a project that is ready to train."""

from __future__ import annotations

import datetime
import json
import os
import tempfile
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

from ..files import write_text
from .checker import check
from .config_text import Project, config_text
from .convert import BACKGROUND, common_suffix, write_maps, write_objects
from .drawing import samples
from .findings import DataError, Finding, errors
from .formats import read
from .labels import Folder, Labels, Wishes
from .page import Report, page
from .palette import colours
from .settings import (
    Choice,
    Machine,
    Settings,
    choose,
    choose_task,
)
from .splits import Split, split
from .summary import Summary, lines, summarise
from .tidy import tidy

STAMP = 'project.json'  # says that a folder was written here


class Order(NamedTuple):
    """What the user asks for.

    Attributes:
        folder: of images and labels; it is only read.
        out: the config to write; labels go to a folder of its name.
        bases: folder of the base configs.
        task: of ``TASKS``, or empty for what the labels allow.
        arch: of the backbone.
        wishes: about classes.
        html: whether to write a page.
        seed: of the division into training and validation.
        overwrite: whether an earlier project of this name may go.
        epochs: of training; 0 chooses them.
    """

    folder: Path
    out: Path
    bases: Path
    task: str = ''
    arch: str = 'tiny'
    wishes: Wishes = Wishes()
    html: bool = False
    seed: int = 0
    overwrite: bool = False
    epochs: int = 0

    @property
    def labels(self) -> Path:
        return self.out.with_suffix('')


class Done(NamedTuple):
    """What was made.

    Attributes:
        config: its path.
        page: path of the report; None where none was asked for.
        report: about the data, a fact a line.
        findings: anything odd.
        settings: with their reasons.
    """

    config: Path
    page: Optional[Path]
    report: List[str]
    findings: List[Finding]
    settings: Settings


class Plan(NamedTuple):
    """All that is known before anything is written."""

    order: Order
    folder: Folder
    labels: Labels
    summary: Summary
    parts: Split
    settings: Settings
    project: Project

    @property
    def palette(self) -> List[Tuple[int, int, int]]:
        """Colours of the classes that labels have, background left out."""
        return self.project.palette[-len(self.labels.classes) :]


def make(order: Order, machine: Machine) -> Done:
    """Read, check, choose and write; all of it or nothing.

    Raises:
        ValueError, FileNotFoundError: says what to change; nothing is
            written.
        DataError: when the result would not train.
    """
    plan = _plan(order, machine)
    findings = list(plan.labels.oddities)
    order.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=order.out.parent, prefix=f'.{order.out.stem}-'
    ) as name:
        stage = Path(name)
        _stage(plan, stage)
        findings += _checked(stage / order.out.name)
        if order.html:
            text = page(_report(plan, findings))
            write_text(text, stage / order.labels.name / 'report.html')
        _publish(plan, stage)
    html = order.labels / 'report.html' if order.html else None
    report = lines(plan.labels, plan.summary)
    return Done(order.out, html, report, findings, plan.settings)


def _plan(order: Order, machine: Machine) -> Plan:
    _refuse(order)
    folder = Folder(str(order.folder))
    labels = read(folder, order.task, order.wishes)
    labels = tidy(folder, labels, order.wishes)
    summary = summarise(labels)
    task = choose_task(labels, summary, order.task)
    parts = split(labels, order.seed)
    chosen = choose(
        task.value, order.arch, summary, parts, machine, order.epochs
    )
    about = [task, Choice('division', _sizes(parts), parts.reason)]
    zero = _zero(order, labels, task.value)
    settings = chosen._replace(reasons=(*about, *zero, *chosen.reasons))
    project = _project(order, labels, parts, settings)
    return Plan(order, folder, labels, summary, parts, settings, project)


def _refuse(order: Order) -> None:
    """Stop for what would overwrite a file of somebody else's."""
    if order.epochs < 0:
        raise ValueError(f'--epochs must be 1 or more, got {order.epochs}')
    inside, folder = order.out.resolve(), order.folder.resolve()
    if folder in inside.parents:
        raise ValueError(
            f'--out {order.out} is inside {order.folder}, which is left as '
            'it is; choose another place'
        )
    if order.out.suffix != '.py' or not order.out.stem.isidentifier():
        raise ValueError(
            f'--out {order.out}: a name of letters, digits and _ that ends '
            'in .py, as my_project.py'
        )
    there = [path for path in (order.out, order.labels) if path.exists()]
    if there and not order.overwrite:
        raise ValueError(
            f'{there[0]} exists; --overwrite replaces it, or choose another '
            '--out'
        )
    if order.labels.exists() and not (order.labels / STAMP).is_file():
        raise ValueError(
            f'{order.labels} was not written by this command (it has no '
            f'{STAMP}) and is left as it is; choose another --out'
        )


def _sizes(parts: Split) -> str:
    return f'{len(parts.train)} to train, {len(parts.val)} to validate'


def _zero(order: Order, labels: Labels, task: str) -> List[Choice]:
    """Say what label 0 is, where that is a question."""
    if labels.maps:
        value, _, reason = labels.maps.zero.partition(': ')
        return [Choice('label 0', value, reason)] if reason else []
    if task != 'seg':
        return []
    ignored = order.wishes.zero == 'ignore'
    if ignored and len(labels.classes) < 2:
        raise ValueError(
            f'--zero ignore: {labels.classes[0]!r} would be the only class, '
            'and training needs two; pass --zero class'
        )
    value = 'ignored' if ignored else f'the class {BACKGROUND!r}'
    why = '--zero ignore' if ignored else 'pixels that no object covers'
    return [Choice('label 0', value, why)]


def _project(
    order: Order, labels: Labels, parts: Split, settings: Settings
) -> Project:
    classes = list(labels.classes)
    palette = labels.maps.palette if labels.maps else colours(len(classes))
    painted = settings.task == 'seg' and not labels.maps
    if painted and order.wishes.zero != 'ignore':
        classes, palette = [BACKGROUND, *classes], [(0, 0, 0), *palette]
    return Project(
        order.out.stem,
        order.folder.resolve().as_posix(),
        order.bases.resolve().as_posix(),
        classes,
        palette,
        common_suffix(parts.train + parts.val),
        datetime.date.today().isoformat(),
    )


def _stage(plan: Plan, stage: Path) -> None:
    """Write labels and config aside, where they can be tried."""
    order, task = plan.order, plan.settings.task
    out = stage / order.labels.name
    if task == 'seg':
        ignore = order.wishes.zero == 'ignore'
        write_maps(plan.folder, plan.labels, plan.parts, out, ignore)
    else:
        write_objects(plan.labels, plan.parts, out, masks=task == 'det')
    settings = plan.settings._asdict()
    stamp = dict(source=plan.project.source, settings=settings)
    write_text(json.dumps(stamp, indent=1, default=str), out / STAMP)
    text = config_text(plan.project, plan.settings)
    write_text(text, stage / order.out.name)


def _checked(config: Path) -> List[Finding]:
    """Judge the new project as training will."""
    from mmengine.config import Config

    stage = f'{config.parent}{os.sep}'
    found = [
        Finding(*(word.replace(stage, '') for word in each))
        for each in check(Config.fromfile(str(config)))
    ]
    if errors(found):
        raise DataError(errors(found))
    return found


def _report(plan: Plan, findings: List[Finding]) -> Report:
    return Report(
        f'{plan.order.folder.resolve().name} ({plan.settings.task})',
        plan.labels,
        plan.summary,
        findings,
        plan.settings.reasons,
        plan.palette,
        samples(plan.folder, plan.labels, plan.palette),
    )


def _publish(plan: Plan, stage: Path) -> None:
    """Move the labels to their place, then write the config."""
    order = plan.order
    if order.labels.exists():
        order.labels.rename(stage / 'earlier')
    (stage / order.labels.name).rename(order.labels)
    project = plan.project._replace(bases=_bases(order))
    write_text(config_text(project, plan.settings), order.out)


def _bases(order: Order) -> str:
    """Name the base configs relative to a config of the same repository."""
    bases, out = order.bases.resolve(), order.out.resolve()
    if bases.parents[1] in out.parents:
        return Path(os.path.relpath(bases, out.parent)).as_posix()
    return bases.as_posix()


def next_commands(done: Done) -> List[str]:
    """Write the commands that people want now."""
    config, work = done.config, f'work_dirs/{done.config.stem}'
    best = f'$(cat {work}/last_checkpoint)'
    return [
        f'python tools/browse_dataset.py {config} --out {work}/samples',
        f'python tools/train.py {config}',
        f'python tools/test.py {config} {best}',
        f'python tools/predict.py {config} {best} IMAGES --out '
        f'{work}/pictures --html',
    ]
