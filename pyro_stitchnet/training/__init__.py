"""The training loop, its diagnostics, and checkpoints."""
