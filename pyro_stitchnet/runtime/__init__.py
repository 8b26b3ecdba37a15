"""Devices, processes, files and provenance."""
