"""From scans to segmentations in their own grid, figures and reports."""
