"""Segmentation networks and semi-supervised peers to compare StitchNet with, one file each."""
