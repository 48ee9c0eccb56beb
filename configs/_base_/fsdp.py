# Shard parameters, gradients and optimizer over the processes, for models
# that do not fit one GPU. Beside a recipe, in a config of your own:
#
#     _base_ = ['./upernet_convnextv2_huge_ade20k.py', './_base_/fsdp.py']
runner_type = 'FlexibleRunner'
strategy = dict(
    type='FSDPStrategy',
    model_wrapper=dict(
        auto_wrap_policy=dict(
            type='torch.distributed.fsdp.wrap.size_based_auto_wrap_policy',
            min_num_params=10_000_000,
        ),
        # Layer-wise decay needs each parameter by its name.
        use_orig_params=True,
    ),
)
