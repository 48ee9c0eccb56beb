"""FCMAE: pre-training a ConvNeXt on images without labels."""
