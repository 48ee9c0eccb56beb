"""FSDP shards blocks, and nothing inside or around them."""

from pathlib import Path

from backbones import both, micro
from mmengine.config import Config
from mmengine.registry import FUNCTIONS

from mmconvnext import ConvNeXtBlock
from mmconvnext.models.sharding import wrap_blocks

FSDP = Path(__file__).parents[2] / 'configs' / '_base_' / 'fsdp.py'


def test_the_config_names_the_policy() -> None:
    wrapper = Config.fromfile(FSDP).strategy.model_wrapper
    with FUNCTIONS.switch_scope_and_registry(None) as registry:
        assert registry.get(wrapper.auto_wrap_policy) is wrap_blocks


@both
def test_blocks_alone_are_wrapped(cls: type) -> None:
    model = micro(cls)
    wrapped = [m for m in model.modules() if wrap_blocks(m, False, 1 << 40)]
    assert {type(m) for m in wrapped} == {ConvNeXtBlock}
    assert len(wrapped) == sum(model.depths)
    assert all(wrap_blocks(m, True, 0) for m in model.modules())
