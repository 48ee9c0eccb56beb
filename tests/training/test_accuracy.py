"""Top-k accuracy against counting by hand."""

import pytest
import torch

from mmconvnext import Accuracy


def run(scores: torch.Tensor, labels: list, topk=(1, 5)) -> dict:
    metric = Accuracy(topk)
    for row, label in zip(scores, labels):
        metric.process({}, [dict(pred_scores=row, gt_label=label)])
    return metric.evaluate(len(labels))


def test_counts_as_topk_does() -> None:
    torch.manual_seed(0)
    scores = torch.rand(50, 8)
    labels = torch.randint(8, (50,))
    found = run(scores, labels.tolist(), (1, 2, 5))
    for k in (1, 2, 5):
        hits = (scores.topk(k).indices == labels[:, None]).any(1)
        expected = 100 * float(hits.float().mean())
        assert found[f'accuracy/top{k}'] == pytest.approx(expected)


def test_a_constant_model_knows_nothing() -> None:
    assert run(torch.ones(4, 3), [0, 1, 2, 0])['accuracy/top1'] == 0


def test_k_that_all_classes_reach_is_left_out() -> None:
    assert set(run(torch.rand(4, 5), [0] * 4)) == {'accuracy/top1'}
    assert set(run(torch.rand(4, 1), [0] * 4)) == {'accuracy/top1'}


def test_an_image_without_a_label_is_named() -> None:
    sample = dict(pred_scores=torch.rand(3), img_path='a/0.jpg')
    with pytest.raises(ValueError, match='no label: a/0.jpg'):
        Accuracy().process({}, [sample])
