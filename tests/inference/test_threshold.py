"""The threshold with the best F1: found, written, looked up."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmconvnext.inference import threshold
from mmconvnext.inference.threshold import Best, best_f1, matched


@pytest.mark.parametrize(
    'scores, hits, objects, best',
    [
        ([0.9, 0.8, 0.7], [1, 1, 0], 2, Best(0.8, 1.0)),
        ([0.7, 0.9, 0.8], [0, 1, 1], 2, Best(0.8, 1.0)),
        # 2 of 3 kept are right, of 4: 4/7; one more wrong: 4/8; then 6/9
        ([0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 1, 0, 1], 4, Best(0.5, 6 / 9)),
        # equal scores stay together: 1 of 2 is right
        ([0.9, 0.9], [1, 0], 1, Best(0.9, 2 / 3)),
        ([], [], 3, Best(threshold.DEFAULT, 0.0)),
        ([0.9], [0], 0, Best(threshold.DEFAULT, 0.0)),
    ],
)
def test_best_f1(scores, hits, objects, best) -> None:
    found = best_f1(np.array(scores), np.array(hits, bool), objects)
    assert found == pytest.approx(best)


def brute(scores: np.ndarray, hits: np.ndarray, objects: int) -> float:
    return max(
        2 * hits[scores >= t].sum() / ((scores >= t).sum() + objects)
        for t in scores
    )


@pytest.mark.parametrize('seed', range(5))
def test_best_f1_is_that_of_trying_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.random(50).round(1)
    hits = rng.random(50) < scores
    found = best_f1(scores, hits, 60)
    assert found.f1 == pytest.approx(brute(scores, hits, 60))
    kept = scores >= found.score
    assert 2 * hits[kept].sum() / (kept.sum() + 60) == pytest.approx(found.f1)


def test_an_object_is_found_once_and_by_its_class() -> None:
    truth = np.array([[0, 0, 10, 10], [20, 0, 30, 10.0]])
    boxes = np.array(
        [[0, 0, 10, 9], [0, 0, 10, 10], [20, 0, 30, 10], [5, 0, 15, 10.0]]
    )
    hits = matched(boxes, np.array([0, 0, 1, 0]), truth, np.array([0, 0]))
    assert hits.tolist() == [True, False, False, False]
    nothing = matched(boxes, np.zeros(4), np.zeros((0, 4)), np.zeros(0))
    assert not nothing.any()


class DataSet:
    """Two images; the second has a crowd and nothing else."""

    def __len__(self) -> int:
        return 2

    def get_data_info(self, i: int) -> dict:
        crowd = dict(bbox=[0, 0, 5, 5], bbox_label=0, ignore_flag=1)
        one = dict(bbox=[0, 0, 10, 10], bbox_label=1, ignore_flag=0)
        return dict(img_id=7 + i, instances=[one] if not i else [crowd])


def run(tmp_path: Path, steps: dict) -> None:
    """Validate at some iterations; detections have these scores."""
    evaluator = SimpleNamespace(dataset_meta={}, metrics=[])
    runner = SimpleNamespace(
        val_loop=SimpleNamespace(evaluator=evaluator),
        val_dataloader=SimpleNamespace(dataset=DataSet()),
        work_dir=str(tmp_path),
    )
    hook = threshold.ThresholdHook()
    hook.before_train(runner)
    (metric,) = evaluator.metrics
    for step, score in steps.items():
        found = dict(
            scores=torch.tensor([0.1, score]),
            bboxes=torch.tensor([[0, 0, 3, 3], [0, 0, 10, 10.0]]),
            labels=torch.tensor([1, 1]),
        )
        empty = {k: v[:0] for k, v in found.items()}
        metric.process({}, [dict(pred_instances=found, img_id=7)])
        metric.process({}, [dict(pred_instances=empty, img_id=8)])
        assert metric.evaluate(2) == dict(F1=1.0)
        runner.iter, runner.epoch = step, step // 10
        hook.after_val_epoch(runner)


def test_each_checkpoint_has_its_own(tmp_path: Path) -> None:
    run(tmp_path, {100: 0.4, 200: 0.6})
    run(tmp_path, {200: 0.5})  # resumed from 100
    rows = json.loads((tmp_path / threshold.FILE).read_text())
    assert [row['iter'] for row in rows['validations']] == [100, 200]
    for name, score in {
        'iter_100.pth': 0.4,
        'iter_150.pth': 0.4,
        'iter_200.pth': 0.5,
        'iter_50.pth': 0.4,
        'epoch_20.pth': 0.5,
        'best_coco_segm_mAP_epoch_10.pth': 0.4,
        'final.pth': 0.5,
    }.items():
        found = threshold.threshold_of(str(tmp_path / name))
        assert found == pytest.approx(score), name
    assert threshold.threshold_of(str(tmp_path / 'x/iter_1.pth')) is None


def test_nothing_found_gives_no_metric(tmp_path: Path) -> None:
    # mmengine chooses no best checkpoint where no metric has a value.
    metric = threshold.ThresholdMetric({7: (np.zeros((1, 4)), np.ones(1))})
    empty = dict(
        scores=torch.zeros(0), bboxes=torch.zeros(0, 4), labels=torch.zeros(0)
    )
    metric.process({}, [dict(pred_instances=empty, img_id=7)])
    assert metric.evaluate(1) == {}
    assert metric.best == threshold.Best(threshold.DEFAULT, 0.0)


class Maps(DataSet):
    def get_data_info(self, i: int) -> dict:
        return dict(img_path='x', seg_map_path='y')


def test_other_data_sets_are_left_alone(tmp_path: Path) -> None:
    evaluator = SimpleNamespace(dataset_meta={}, metrics=[])
    for dataset in ([1, 2], Maps()):
        runner = SimpleNamespace(
            val_loop=SimpleNamespace(evaluator=evaluator),
            val_dataloader=SimpleNamespace(dataset=dataset),
            work_dir=str(tmp_path),
        )
        hook = threshold.ThresholdHook()
        hook.before_train(runner)
        hook.after_val_epoch(runner)
    assert not evaluator.metrics and not list(tmp_path.iterdir())
