# What follows from the arch of a backbone: the channels of its four stages,
# and its pre-trained weights. A config names its arch once and looks the rest
# up (_base_ is the merged base files):
#
#     arch = 'tiny'
#     model = dict(
#         backbone=dict(arch=arch),
#         neck=dict(in_channels=_base_.channels[arch]),
#     )
channels = {
    name: list(row.dims)
    # No import statement: mmengine 0.10.7 takes one for a lazy config.
    for name, row in __import__('mmconvnext').ARCHS.items()
}
_url = 'https://dl.fbaipublicfiles.com/convnext/'
weights = dict(
    # tiny, small, base, large
    v1_1k=_url + 'convnext_{arch}_1k_224.pth',
    # tiny, small, base, large, xlarge
    v1_22k=_url + 'convnext_{arch}_22k_224.pth',
    # V2, licence CC-BY-NC-4.0: all but small. Pre-trained only.
    v2_fcmae=_url + 'convnextv2/pt_only/convnextv2_{arch}_1k_224_fcmae.pt',
    # V2: all but small. Fine-tuned on ImageNet-1K.
    v2_1k=_url + 'convnextv2/im1k/convnextv2_{arch}_1k_224_ema.pt',
    # V2: nano, tiny, base, large, huge. Fine-tuned on ImageNet-22K, then 1K.
    v2_22k=_url + 'convnextv2/im22k/convnextv2_{arch}_22k_384_ema.pt',
    # From timm (Hugging Face), a file of your own: tiny, small, base, large.
    dinov3='checkpoints/convnext_{arch}.dinov3_lvd1689m/model.safetensors',
)
