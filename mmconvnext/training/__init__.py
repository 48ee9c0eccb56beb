"""What training needs beside a model: rates, resuming, augmentation."""
