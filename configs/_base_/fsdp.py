# Shard parameters, gradients and optimizer over the processes, for models
# that do not fit one GPU. Beside a recipe, in a config of your own:
#
#     _base_ = ['./upernet_convnextv2_huge_ade20k.py', './_base_/fsdp.py']
runner_type = 'FlexibleRunner'
strategy = dict(
    type='FSDPStrategy',
    model_wrapper=dict(
        # Parts of a block must not be wrapped, nor stages.
        auto_wrap_policy='mmconvnext.models.sharding.wrap_blocks',
        # Layer-wise decay needs each parameter by its name.
        use_orig_params=True,
    ),
)
