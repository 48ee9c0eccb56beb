# Fine-tuning on ImageNet-1K after 22K (arXiv 2301.00808, appendix A.2).
_base_ = './runtime_cls.py'
optim_wrapper = dict(
    accumulative_counts=2,
    # 2.5e-5 per 256 images.
    optimizer=dict(lr=2.5e-5 * 512 / 256, weight_decay=1e-8),
)
auto_scale_lr = dict(base_batch_size=512)
max_epochs = 30
# No warm-up.
param_scheduler = _base_.param_scheduler[1:]
param_scheduler[0].update(
    eta_min_ratio=1e-6 / (2.5e-5 * 512 / 256), begin=0, end=max_epochs
)
train_cfg = dict(max_epochs=max_epochs)
custom_hooks = _base_.custom_hooks
custom_hooks[2].update(interval=2)
