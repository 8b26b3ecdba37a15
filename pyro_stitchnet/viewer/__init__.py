"""Web pages that show segmented scans: a table of all scans, and one page per scan."""
