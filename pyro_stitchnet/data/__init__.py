"""From files and phantoms to batches; independent of the model."""
