"""The training loop, its diagnostics, checkpoints, and a whole run."""
