"""Metrics, tables, and the evaluation of a model on labelled slices."""
