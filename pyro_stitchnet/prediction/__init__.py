"""From scans to segmentations on their own grid, measurements and reports."""
