# Fine-tuning on ImageNet-22K (arXiv 2301.00808, appendix A.2).
_base_ = './runtime_cls.py'
optim_wrapper = dict(
    accumulative_counts=8,
    # 2.5e-4 per 256 images.
    optimizer=dict(lr=2.5e-4 * 4096 / 256),
)
auto_scale_lr = dict(base_batch_size=4096)
max_epochs, warmup_epochs = 90, 5
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=warmup_epochs)
param_scheduler[1].update(
    eta_min_ratio=1e-6 / (2.5e-4 * 4096 / 256),
    begin=warmup_epochs,
    end=max_epochs,
)
train_cfg = dict(max_epochs=max_epochs)
# No moving average.
custom_hooks = _base_.custom_hooks[:2]
