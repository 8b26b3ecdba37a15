"""CT scans and masks from files, and back to files."""
