"""Time limits that library and command line share; this module is quick to import."""

__all__ = ["PREDICT_SECONDS", "PREPARE_SECONDS"]

PREPARE_SECONDS = 600.0
"""Seconds that a scan may take in a process of `prepare`."""

PREDICT_SECONDS = 3600.0
"""Seconds that a scan may take in a process of `predict`."""
