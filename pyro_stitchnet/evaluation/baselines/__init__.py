"""Segmentation networks and semi-supervised methods to compare StitchNet with, one file each."""
