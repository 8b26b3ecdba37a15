"""Synthetic chest slices with exact labels."""
