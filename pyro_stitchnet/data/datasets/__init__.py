"""Prepared datasets: preparation, shards, splits, batches, augmentation."""
