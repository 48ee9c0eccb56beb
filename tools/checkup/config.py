"""Whether a config can run here: its imports, types and data."""

from __future__ import annotations

import ast
import contextlib
import importlib
from pathlib import Path
from typing import Any, Callable, Iterator, List

from .fixes import Problem, install_command
from .probes import serve_operators


def bases(path: Path) -> Iterator[Path]:
    """Yield the files a config is based on, directly or not.

    Bases of other packages (``mmdet::...``) are left out.
    """
    if path.suffix != '.py' or not path.is_file():
        return
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        targets = getattr(node, 'targets', [])
        if '_base_' in [getattr(target, 'id', '') for target in targets]:
            names = ast.literal_eval(node.value)
            for name in [names] if isinstance(names, str) else names:
                yield path.parent / name
                yield from bases(path.parent / name)


def imports_of(cfg: dict) -> List[str]:
    names = (cfg.get('custom_imports') or {}).get('imports') or []
    return [names] if isinstance(names, str) else list(names)


def lost_imports(path: Path, cfg: dict) -> Iterator[Problem]:
    """Find imports of base files that the config replaced by its own.

    mmengine merges dicts, but a list replaces the list of the base.
    """
    from mmengine.config import Config

    final = imports_of(cfg)
    known = list(final)
    for base in filter(Path.is_file, bases(path)):
        loaded = Config.fromfile(base, import_custom_modules=False)
        lost = [name for name in imports_of(loaded) if name not in known]
        known = [*lost, *known]
        if lost:
            yield Problem(
                f'custom_imports replaces that of {base.name}: {lost} will '
                f'not be imported, only {final}',
                f'edit {path}: custom_imports = dict(imports={known})',
            )


def failed_imports(cfg: dict) -> Iterator[Problem]:
    for name in imports_of(cfg):
        try:
            importlib.import_module(name)
        except Exception as error:
            yield Problem(
                f'custom_imports: {name} does not import ({error})',
                'PYTHONPATH=FOLDER_OF_THE_MODULE:$PYTHONPATH before the '
                f'command, or {install_command(name.split(".")[0])}',
            )


def dicts_in(node: Any) -> Iterator[dict]:
    if isinstance(node, dict):
        yield node
    if isinstance(node, (dict, list, tuple)):
        for child in node.values() if isinstance(node, dict) else node:
            yield from dicts_in(child)


def unknown_types(cfg: dict) -> Iterator[Problem]:
    """Find types with a scope, as in mmdet.ResNet, that no registry knows."""
    # mmengine's own types are registered by what training imports.
    from mmengine import registry, runner  # noqa: F401

    registries = [
        value
        for value in vars(registry).values()
        if isinstance(value, registry.Registry)
    ]

    def resolves(name: str) -> bool:
        for each in registries:
            with contextlib.suppress(Exception):
                if each.get(name) is not None:
                    return True
        return False

    names = [node.get('type') for node in dicts_in(cfg)]
    scoped = {n for n in names if isinstance(n, str) and '.' in n}
    for name in sorted(scoped):
        if not resolves(name):
            scope = name.split('.')[0]
            yield Problem(
                f'type {name!r} is in no registry: {scope} is not '
                f'installed, does not import, or has no such name',
                f'python -c "import {scope}.registry"  # shows the cause; '
                f'if it is missing: {install_command(scope)}',
            )


def faulty_data(cfg: dict) -> Iterator[Problem]:
    """Ask what the other tools ask of the data before they start."""
    try:
        cli = importlib.import_module('mmconvnext.cli')
    except Exception:
        return  # why it does not import is reported by itself
    found: List[Any] = []
    try:
        cli.check_data(cfg, cli.LOADERS, say=found.append)
    except (FileNotFoundError, ValueError) as error:
        if not hasattr(error, 'findings'):
            yield _absent_data(error)
        found += getattr(error, 'findings', [])
    for each in found:
        if each.severity != 'note':
            yield Problem(
                f'{each.severity} in {each.file}: {each.found}; expected '
                f'{each.expected}',
                each.fix,
            )


def _absent_data(error: Exception) -> Problem:
    lines = [line for line in str(error).splitlines() if line.strip()]
    lacking = [line.split()[0] for line in lines if 'MISSING' in line]
    return Problem(f'{lines[0]} {" ".join(lacking)}', lines[-1])


def probe_config(name: str) -> Callable[[], dict]:
    def run() -> dict:
        from mmengine.config import Config

        path = Path(name)
        if not path.is_file():
            what = f'config {name} does not exist'
            return dict(problems=[(what, f'ls {path.parent}')])
        # It finds configs of every host as a base, as for the other tools.
        with contextlib.suppress(Exception):  # which is a finding by itself
            importlib.import_module('mmconvnext')
        try:
            cfg = Config.fromfile(path, import_custom_modules=False)
        except Exception as error:
            what = f'{name} does not load: {type(error).__name__}: {error}'
            return dict(problems=[(what, f'edit {name}')])
        with contextlib.suppress(ImportError):
            serve_operators()
        checks = (failed_imports, unknown_types, faulty_data)
        problems = list(lost_imports(path, cfg))
        settings = dict(cfg.items())
        problems += [each for check in checks for each in check(settings)]
        return dict(remark=name, problems=problems)

    return run
