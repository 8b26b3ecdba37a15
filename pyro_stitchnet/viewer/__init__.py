"""Pages to look at segmented scans with: a table of all of them, and one page a scan."""
