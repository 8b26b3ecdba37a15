"""From a scan to model input: windowing, lung field, crop, resize."""
