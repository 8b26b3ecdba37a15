"""From files and phantoms to batches. Knows nothing of the model."""
