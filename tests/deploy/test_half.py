"""Float16: the overflow of GRN built on purpose, and files free of it.

ONNX Runtime computes float16 in float32 on a CPU and hides it; onnx's
reference evaluator computes in the type that the graph names.
"""

import copy
from pathlib import Path

import exported
import numpy as np
import pytest
import torch

exported.need_extras()
import onnx  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from mmconvnext import GRN  # noqa: E402
from mmconvnext.deploy import exact, export, half  # noqa: E402

# A detector's first map at 800 x 1344, as reported: RMS 1.33, so that the
# sum of squares of a channel, 119,000, is past float16's 65,504.
HEIGHT, WIDTH, RMS = 200, 336, 1.33


class Naive(torch.nn.Module):
    """GRN as the authors' code: the norm in the type of the map."""

    def __init__(self, grn: GRN) -> None:
        super().__init__()
        self.grn = grn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        norm = x.norm(p=2, dim=(1, 2), keepdim=True)
        ratio = norm / (norm.mean(-1, keepdim=True) + 1e-6)
        return self.grn.gamma * (x * ratio) + self.grn.beta + x


def graph_of(module: torch.nn.Module, x: torch.Tensor, path: Path):
    torch.onnx.export(
        module,
        (x[:, :4, :4],),
        str(path),
        input_names=['x'],
        dynamic_axes={'x': {1: 'h', 2: 'w'}},
        opset_version=17,
        **export._exporter(),
    )
    return onnx.load(str(path))


@pytest.fixture(scope='module')
def grn() -> GRN:
    torch.manual_seed(0)
    layer = GRN(3)
    torch.nn.init.normal_(layer.gamma)
    torch.nn.init.normal_(layer.beta)
    return layer


@pytest.fixture(scope='module')
def maps() -> torch.Tensor:
    torch.manual_seed(0)
    return RMS * torch.randn(1, HEIGHT, WIDTH, 3)


def naive(layer: GRN, x: torch.Tensor, path: Path) -> tuple:
    """The fault: the graph in float16, and what it computes."""
    graph = graph_of(Naive(copy.deepcopy(layer)).half(), x.half(), path)
    with np.errstate(all='ignore'):
        found = ReferenceEvaluator(graph).run(None, {'x': x.half().numpy()})
    return graph, found[0]


def test_naive_half_overflows(maps: torch.Tensor, tmp_path: Path) -> None:
    """Added up in pairs, as numpy does along memory, and as GPUs do."""
    graph, found = naive(GRN(1), maps[..., :1].contiguous(), tmp_path / 'x')
    assert np.isnan(found).all()
    with pytest.raises(ValueError, match='could overflow: ReduceL2'):
        half.verify(graph)


def test_naive_half_loses_what_it_adds(
    grn: GRN, maps: torch.Tensor, tmp_path: Path
) -> None:
    """Added up one by one the sum stops growing: half of it is lost."""
    graph, _ = naive(grn, maps, tmp_path / 'x')
    (norm,) = [n for n in graph.graph.node if n.op_type == 'ReduceL2']
    del graph.graph.output[:]
    graph.graph.output.extend([onnx.ValueInfoProto(name=norm.output[0])])
    x = maps.half().numpy()
    found = ReferenceEvaluator(graph).run(None, {'x': x})[0]
    exact = maps.norm(dim=(1, 2), keepdim=True).numpy()
    assert (found < 0.7 * exact).all()


def test_ours_does_not(grn: GRN, maps: torch.Tensor, tmp_path: Path) -> None:
    module = copy.deepcopy(grn).half()
    with exact.Exact():
        graph = graph_of(module, maps.half(), tmp_path / 'ours.onnx')
    half.verify(graph)
    found = ReferenceEvaluator(graph).run(None, {'x': maps.half().numpy()})[0]
    assert found.dtype == np.float16
    wanted = grn(maps).detach().numpy()
    np.testing.assert_allclose(found, wanted, atol=0.03, rtol=3e-3)


def test_the_exporter_drops_the_type_of_a_norm(
    grn: GRN, maps: torch.Tensor, tmp_path: Path
) -> None:
    """The control: our GRN without the replacement overflows as well."""
    module = copy.deepcopy(grn).half()
    graph = graph_of(module, maps.half(), tmp_path / 'dropped.onnx')
    assert half.faults(graph)


GROUPS = dict(neck=dict(norm_cfg=dict(type='GN', num_groups=2)))


@pytest.mark.parametrize(
    ('name', 'settings'),
    [(exported.UPERNET[2], {}), (exported.MASK[2], GROUPS)],
)
def test_files_are_free_of_it(
    name: str, settings: dict, tmp_path: Path
) -> None:
    cfg = exported.config(name, **settings)
    path = tmp_path / 'model.onnx'
    model = exported.build(cfg)
    file = exported.write(model, cfg, path, precision='fp16')
    assert next(model.parameters()).dtype == torch.float32  # unchanged
    graph = onnx.load(str(path))
    assert half.faults(graph) == []
    kinds = [node.op_type for node in graph.graph.node]
    assert 'ReduceL2' in kinds and 'LayerNormalization' in kinds
    types = {t.data_type for t in graph.graph.initializer}
    assert onnx.TensorProto.FLOAT16 in types
    assert file.description.precision == 'fp16'
    found = file.predict(exported.image(97, 130))
    assert found.labels.shape


def test_a_stash_in_half_is_a_fault(tmp_path: Path) -> None:
    cfg = exported.config(exported.UPERNET[2])
    path = tmp_path / 'model.onnx'
    exported.write(exported.build(cfg), cfg, path, precision='fp16')
    graph = onnx.load(str(path))
    norms = [n for n in graph.graph.node if n.op_type == 'LayerNormalization']
    half_type = onnx.TensorProto.FLOAT16
    norms[0].attribute.append(
        onnx.helper.make_attribute('stash_type', half_type)
    )
    assert len(half.faults(graph)) == 1
    with pytest.raises(ValueError, match='stash_type is 10'):
        half.verify(graph)


def test_half_is_close(tmp_path: Path) -> None:
    cfg = exported.config(exported.UPERNET[2])
    model = exported.build(cfg)
    path = tmp_path / 'model.onnx'
    file = exported.write(model, cfg, path, precision='fp16')
    batch = exported.images(1, 97, 130)
    sample = exported.predict(model, batch)[0]
    found = file.run(batch.numpy())
    wanted = sample.seg_logits.data.numpy()
    error = np.abs(found['logits'][0] - wanted).max()
    assert error < 0.02 * np.abs(wanted).max()
    assert (found['labels'][0] != wanted.argmax(0)).mean() < 0.02
