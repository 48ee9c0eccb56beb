"""Adopt a ConvNeXt into the hosts' own configs, one a method folder and more.

python tests/campaigns/adopt_zoo.py [--out FILE.jsonl] [--only TEXT]

Every row is read, adopted at tiny width with random weights, written, read
again and compared, and takes one training step and one prediction. Where
that fails, the unchanged config is tried, too: "host" means that it fails in
the same way. Rows already in FILE are not repeated.

Some rows need packages that the hosts leave to the user: lap (trackers),
scikit-image (BoxInst), scikit-learn (PAA), transformers 4 (GLIP and
Grounding DINO, with a small BERT of random weights).
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import logging
import tempfile
import time
import traceback
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterator, List

from mmengine.config import Config
from mmengine.logging import MMLogger

from mmconvnext.adopt import RefusedError, adopt, read
from mmconvnext.adopt.check import ALIKE, CheckError, check
from mmconvnext.adopt.write import write
from mmconvnext.cli import prepare_hosts
from mmconvnext.configs import HOSTS
from mmconvnext.hub import config_folders

ARCH = dict(depths=[1, 1, 1, 1], dims=[8, 16, 24, 32])
# Not a model of their own.
PARTS = ('_base_', 'common')
# Folders that mix designs have more than one row.
MORE: Dict[str, tuple] = {
    'mmdet': (
        'cascade_rpn/cascade-rpn_fast-rcnn_r50-caffe_fpn_1x_coco.py',
        'cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py',
        'centernet/centernet_r18-dcnv2_8xb16-crop512-140e_coco.py',
        'convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
        'dcn/faster-rcnn_r50_fpn_dpool_1x_coco.py',
        'dcnv2/faster-rcnn_r50_fpn_mdpool_1x_coco.py',
        'detectors/htc_r50-sac_1x_coco.py',
        'dino/dino-5scale_swin-l_8xb2-12e_coco.py',
        'faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py',
        'faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py',
        'glip/glip_atss_swin-t_b_fpn_dyhead_16xb2_ms-2x_funtune_coco.py',
        'mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
        'mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py',
        'mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py',
        'pascal_voc/faster-rcnn_r50-caffe-c4_ms-18k_voc0712.py',
        'pvt/retinanet_pvtv2-b0_fpn_1x_coco.py',
        'rpn/rpn_r50-caffe-c4_1x_coco.py',
        'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
        'rtmdet/rtmdet_l_swin_b_4xb32-100e_coco.py',
        'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
        'swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py',
        'yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco.py',
    ),
    'mmseg': (
        'fastfcn/fastfcn_r50-d32_jpu_psp_4xb2-80k_cityscapes-512x1024.py',
        'knet/knet-s3_swin-t_upernet_8xb2-adamw-80k_ade20k-512x512.py',
        'mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512.py',
        'maskformer/maskformer_swin-t_upernet_8xb2-160k_ade20k-512x512.py',
        'ocrnet/ocrnet_r101-d8_8xb2-40k_cityscapes-512x1024.py',
        'setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512.py',
        'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_'
        'ade20k-512x512.py',
        'twins/twins_pcpvt-s_uperhead_8xb4-160k_ade20k-512x512.py',
        'twins/twins_svt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512.py',
        'upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
        'vit/vit_deit-b16_upernet_8xb2-80k_ade20k-512x512.py',
    ),
}


def rows() -> Iterator[str]:
    """Yield ``mmdet::folder/name.py``: the shortest name of each, and MORE."""
    for host in HOSTS:
        folder = next(config_folders(host))
        for method in sorted(p for p in folder.iterdir() if p.is_dir()):
            if method.name in PARTS:
                continue
            files = [p for p in method.glob('*.py') if 'tta' not in p.stem]
            files = files or sorted(method.rglob('*.py'))
            names = {min(files, key=partial(_rank, method.name))}
            names |= {
                folder / name
                for name in MORE[host]
                if name.startswith(f'{method.name}/')
                and (folder / name).is_file()
            }
            for file in sorted(names):
                yield f'{host}::{file.relative_to(folder).as_posix()}'


def _rank(method: str, file: Path) -> tuple:
    """Order the files of a folder: named as it is first, then the short."""
    named = file.stem.replace('-', '_').startswith(f'{method}_')
    return not named, len(file.name), file.name


def attempt(name: str, folder: Path) -> Dict:
    """Adopt, write, read and check one config; say how it ended."""
    row, start = dict(config=name), time.time()
    try:
        host = read(name)
        cfg, report = adopt(host, arch=ARCH, weights='none')
        write(cfg, report, host, folder / 'adopted.py')
        result = check(with_bert(cfg, folder), with_bert(host, folder))
        row.update(
            verdict='adopted',
            changes=len(report.changes),
            loss=result.loss,
            found=result.found,
            unread=result.unread_backbone,
            others=len(result.unread) - result.unread_backbone,
            said=str(result),
        )
    except RefusedError as reason:
        row.update(verdict='refused', said=str(reason))
    except CheckError as error:
        verdict = 'host' if ALIKE in str(error) else 'fails'
        row.update(verdict=verdict, said=str(error))
        row.update(trace=traceback.format_exc()[-3000:])
    except Exception as error:
        row.update(verdict='fails', said=f'{type(error).__name__}: {error}')
        row.update(trace=traceback.format_exc()[-2000:])
    row['seconds'] = round(time.time() - start, 1)
    return row


def with_bert(cfg: Config, folder: Path) -> Config:
    """Name a small BERT of random weights where a config names a real one."""
    if 'language_model' not in cfg.model:
        return cfg
    path = folder / 'bert'
    if not path.exists():
        make_bert(path)
    cfg = copy.deepcopy(cfg)
    cfg.model = _renamed(cfg.model, 'bert-base-uncased', str(path))
    return cfg


def make_bert(path: Path) -> None:
    """Save a BERT of two layers, with a vocabulary of letters and words."""
    import transformers

    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', 'cat', 'dog']
    path.mkdir()
    (path / 'vocab.txt').write_text('\n'.join(words), encoding='utf-8')
    transformers.BertTokenizer(str(path / 'vocab.txt')).save_pretrained(path)
    sizes = dict(num_hidden_layers=2, intermediate_size=64)
    config = transformers.BertConfig(vocab_size=2000, **sizes)
    transformers.BertModel(config).save_pretrained(path)


def _renamed(node: Any, old: str, new: str) -> Any:
    if isinstance(node, dict):
        return type(node)({k: _renamed(v, old, new) for k, v in node.items()})
    if isinstance(node, (list, tuple)):
        return type(node)(_renamed(v, old, new) for v in node)
    return new if node == old else node


def table(found: List[Dict]) -> str:
    """Lay the rows out in Markdown, with counts."""
    lines = [
        '| config | verdict | step, prediction, or why not |',
        '|---|---|---|',
    ]
    for row in found:
        lines.append(f'| {row["config"]} | {row["verdict"]} | {row["said"]} |')
    counts = Counter(row['verdict'] for row in found)
    unread = sum(row.get('unread', 0) for row in found)
    lines += ['', f'configs: {len(found)}, {dict(counts)}; unread: {unread}']
    return '\n'.join(lines)


def quieten() -> None:
    """Leave the hosts' notices out: the table is what is read."""
    warnings.filterwarnings('ignore')
    MMLogger.get_instance('adopt_zoo', log_level=logging.ERROR)
    logging.disable(logging.WARNING)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', default='work_dirs/adopt_zoo.jsonl')
    parser.add_argument('--only', default='', help='rows with this text')
    parser.add_argument('--redo', action='store_true', help='failed ones too')
    args = parser.parse_args()
    prepare_hosts()
    quieten()
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {}
    if out.is_file():
        for line in out.read_text(encoding='utf-8').splitlines():
            row = json.loads(line)
            done[row['config']] = row
    with tempfile.TemporaryDirectory() as folder:
        for name in rows():
            before = done.get(name, {}).get('verdict')
            skip = before and not (args.redo and before == 'fails')
            if skip or args.only not in name:
                continue
            done[name] = attempt(name, Path(folder))
            with out.open('a', encoding='utf-8') as file:
                file.write(json.dumps(done[name]) + '\n')
            print(f'{done[name]["seconds"]:6.1f} s', name, flush=True)
            print('   ', done[name]['verdict'], done[name]['said'], flush=True)
            gc.collect()
    print(table([done[name] for name in rows() if name in done]))


if __name__ == '__main__':
    main()
