"""What training needs besides a model: rates, resuming, augmentation."""
