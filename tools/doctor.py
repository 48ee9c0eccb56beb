"""Say what is installed, whether it works together, and how to fix it.

    python tools/doctor.py
    python tools/doctor.py --config configs/mask_rcnn_convnextv2_base_coco.py

Every check runs in a process of its own: a package that is broken, hangs or
crashes its interpreter is reported, and the other checks go on. The exit
code is 0 where all that is needed works, 1 where something has to be fixed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import (
    Callable,
    Dict,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from checkup.config import probe_config
from checkup.fixes import (
    HOSTS,
    LINES,
    PIP_NAMES,
    ROOT,
    Problem,
    diagnose,
    host_line,
    install_command,
    installed,
    installed_host,
    reinstall_command,
    rivals,
)
from checkup.probes import (
    probe_coco,
    probe_gpu,
    probe_host,
    probe_mmengine,
    probe_module,
    probe_numpy,
    probe_opencv,
    probe_operators,
    probe_package,
    probe_python,
    probe_scope,
    probe_torch,
)

# Stands before a check's answer: packages print to the same stream.
MARK = '\x1eanswer:'


class Row(NamedTuple):
    """One line of the report; ``state`` is ok, note or PROBLEM."""

    component: str
    version: str
    state: str
    remark: str
    problems: Tuple[Problem, ...] = ()


class Probe(NamedTuple):
    """A check: a function that imports what it needs and reports on it.

    It returns a dict that may hold ``version``, ``remark``, ``note`` (true
    where the remark deserves attention) and ``problems``, pairs of what is
    wrong and its fix.

    Attributes:
        needs: Checks whose failure explains one of this.
        use: For an optional package, what it is for.
        harmful: Whether an optional package does harm where it is broken.
        fix: What to do about an error that is not in ``KNOWN``, where
            installing the package again is not the answer.
    """

    run: Callable[[], dict]
    dists: Tuple[str, ...] = ()
    needs: Tuple[str, ...] = ()
    use: str = ''
    harmful: bool = False
    fix: str = ''


STACK = ('torch', 'numpy', 'opencv', 'mmengine')
HOST_NEEDS = (*STACK, 'mmcv', 'mmcv operators', 'pycocotools', 'torchvision')
PROBES: Dict[str, Probe] = {
    'python': Probe(probe_python),
    'torch': Probe(probe_torch, ('torch',)),
    'gpu': Probe(
        probe_gpu, needs=('torch',), fix='nvidia-smi  # does the driver work?'
    ),
    'numpy': Probe(probe_numpy, ('numpy',), ('torch',)),
    'opencv': Probe(
        probe_opencv, ('opencv-python', 'opencv-python-headless'), ('numpy',)
    ),
    'mmengine': Probe(probe_mmengine, rivals('mmengine'), STACK[:3]),
    'mmcv': Probe(probe_module('mmcv'), rivals('mmcv'), STACK),
    'mmcv operators': Probe(probe_operators, (), (*STACK, 'mmcv')),
    'mmdet': Probe(
        probe_host('mmdet', 'MaskRCNN'), rivals('mmdet'), HOST_NEEDS
    ),
    'mmseg': Probe(
        probe_host('mmseg', 'EncoderDecoder'), rivals('mmseg'), HOST_NEEDS
    ),
    'mmconvnext': Probe(probe_package, ('mmconvnext',), STACK),
    'mmconvnext scope': Probe(probe_scope, (), (*STACK, 'mmconvnext')),
    'pycocotools': Probe(probe_coco, ('pycocotools',), ('numpy',)),
    'torchvision': Probe(
        probe_module('torchvision'),
        ('torchvision',),
        ('torch',),
        'tests against it',
        harmful=True,
    ),
}
EXTRAS = {
    'timm': 'tests and benchmarks against it',
    'transformers': 'tests against it',
    'safetensors': 'checkpoints in that format',
    'triton': 'fused kernels on GPU',
    'faster_coco_eval': 'quicker evaluation',
    'tensorboard': 'training curves',
}
PROBES.update(
    {
        name: Probe(probe_module(name), (PIP_NAMES.get(name, name),), use=use)
        for name, use in EXTRAS.items()
    }
)


def answer(run: Callable[[], dict]) -> None:
    """Run one check in this process and print what it found as JSON."""
    # As for the other tools, and last, where it shadows nothing.
    sys.path.append(str(ROOT))
    try:
        found = run()
    except BaseException as error:
        text = ' '.join(str(error).split())
        found = dict(error=f'{type(error).__name__}: {text}')
    sys.stdout.flush()
    # A package may have replaced the stream.
    os.write(1, f'{MARK}{json.dumps(found)}'.encode())
    # A damaged library may crash when the interpreter ends.
    os._exit(0)


def ask(component: str, arguments: Sequence[str], timeout: float) -> dict:
    """Run one check in its own process; whatever happens is an answer."""
    command = [sys.executable, __file__, '--probe', component, *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return dict(error=f'no answer in {timeout:g} s')
    output = done.stdout.decode(errors='replace')
    if MARK in output:
        return json.loads(output.rsplit(MARK, 1)[1])
    lines = done.stderr.decode(errors='replace').split('\n')
    last = next((line for line in reversed(lines) if line.strip()), '')
    return dict(error=f'its process {ending(done.returncode)} {last}'.strip())


def ending(code: int) -> str:
    if code >= 0:
        return f'ended with exit code {code}'
    try:
        return f'was killed by {signal.Signals(-code).name}'
    except ValueError:
        return f'was killed by signal {-code}'


def is_absent(component: str, found: dict) -> bool:
    error = found.get('error', '')
    return error.endswith(f"No module named '{component}'")


def has_failed(component: str, probe: Probe, found: dict) -> bool:
    if is_absent(component, found) and probe.use:
        return False
    return bool(found.get('error') or found.get('problems'))


def examine(
    component: str, probe: Probe, found: dict, failed: Sequence[str]
) -> Row:
    """Turn what a check found into a line of the report.

    Args:
        failed: The checks that failed.
    """
    version = found.get('version') or next(
        filter(None, map(installed, probe.dists)), '-'
    )
    error = found.get('error', '')
    remark = found.get('remark') or error
    if component in failed and (probe.harmful or not probe.use):
        problems = [Problem(*pair) for pair in found.get('problems', ())]
        if error:
            problems = explain(component, probe, error, failed)
        row = Row(component, version, 'PROBLEM', remark, tuple(problems))
    elif error:
        absent = is_absent(component, found)
        remark = f'{"not installed" if absent else error} ({probe.use})'
        row = Row(component, version, 'note', remark)
    else:
        state = 'note' if found.get('note') else 'ok'
        row = Row(component, version, state, remark)
    return row


def explain(
    component: str, probe: Probe, error: str, failed: Sequence[str]
) -> List[Problem]:
    """Say what to do about an error; nothing if its cause is named already."""
    if component in HOSTS and twice(component):
        return []
    known = diagnose(component, error)
    if known:
        return [known]
    if set(probe.needs) & set(failed):
        return []
    fix = probe.fix or reinstall_command(component.split()[0])
    return [Problem(f'{component} does not work: {error}', fix)]


def twice(host: str) -> List[str]:
    """Name a host's distributions, where more than one is installed."""
    found = [name for name in rivals(host) if installed(name)]
    return found if len(found) > 1 else []


def examine_lines() -> Row:
    """Check that each host is installed once, and from one line."""
    problems = [
        Problem(
            f'{" and ".join(twice(host))} are both installed into the folder '
            f'{host}/ and overwrite each other',
            f'pip uninstall -y {" ".join(twice(host))} && '
            + install_command(host),
        )
        for host in HOSTS
        if twice(host)
    ]
    line = host_line()
    others = [
        f'{dist} {version} (here {installed_host(dist) or "none"})'
        for dist, version in LINES[line].values()
        if installed_host(dist) != version
    ]
    if problems:
        remark = f'installed twice: {", ".join(filter(twice, HOSTS))}'
        return Row('host line', '-', 'PROBLEM', remark, tuple(problems))
    if others:
        return Row('host line', line, 'note', f'tested: {", ".join(others)}')
    return Row('host line', line, 'ok', 'versions tested together')


def gather(config: Optional[str], timeout: float) -> List[Row]:
    """Run all checks, some at a time, and keep the table's order."""
    probes = dict(PROBES)
    arguments = ['--config', config] if config else []
    if config:
        probes['config'] = Probe(
            probe_config(config), needs=HOSTS, fix=f'edit {config}'
        )
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        answers = pool.map(lambda name: ask(name, arguments, timeout), probes)
        found = dict(zip(probes, answers))
    failed = [n for n in probes if has_failed(n, probes[n], found[n])]
    rows = [examine(n, probes[n], found[n], failed) for n in probes]
    place = list(probes).index('mmdet')
    return [*rows[:place], examine_lines(), *rows[place:]]


def shorten(text: str, limit: int = 100) -> str:
    text = ' '.join(text.split())
    return text if len(text) <= limit else f'{text[: limit - 3]}...'


def list_problems(rows: List[Row]) -> List[dict]:
    """Collect the problems; those that one command fixes are one."""
    collected: Dict[str, dict] = {}
    for row in rows:
        for what, fix in row.problems:
            entry = dict(components=[], what=what, fix=fix)
            entry = collected.setdefault(fix, entry)
            if row.component not in entry['components']:
                entry['components'].append(row.component)
    return list(collected.values())


def to_text(rows: List[Row]) -> str:
    head = ('component', 'version', 'state', 'remark')
    cells = [head, *((*row[:3], shorten(row.remark)) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(3)]
    lines = [
        '  '.join([*map(str.ljust, line[:3], widths), line[3]]).rstrip()
        for line in cells
    ]
    problems = list_problems(rows)
    if problems:
        lines += ['', 'Problems']
    for i, problem in enumerate(problems, 1):
        names = ', '.join(problem['components'])
        lines.append(f'{i}. {names}: {problem["what"]}')
        lines.append(f'   fix: {problem["fix"]}')
    count = len(problems)
    closing = (
        f'{count} problem{"s" * (count > 1)} to fix; begin with the first.'
    )
    lines += ['', closing if count else 'All that is needed works.']
    return '\n'.join(lines)


def to_json(rows: List[Row]) -> str:
    problems = list_problems(rows)
    table = [dict(zip(Row._fields[:4], row)) for row in rows]
    return json.dumps(
        dict(ok=not problems, rows=table, problems=problems), indent=2
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--config', help='check this config too')
    parser.add_argument('--json', action='store_true')
    parser.add_argument(
        '--timeout', type=float, default=180, help='seconds for one check'
    )
    parser.add_argument('--probe', help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.probe == 'config':
        answer(probe_config(args.config))
    elif args.probe:
        answer(PROBES[args.probe].run)
    rows = gather(args.config, args.timeout)
    print((to_json if args.json else to_text)(rows))
    return 1 if list_problems(rows) else 0


if __name__ == '__main__':
    sys.exit(main())
