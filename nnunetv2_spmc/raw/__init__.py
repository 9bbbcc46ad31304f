"""Raw datasets: their layout, the one reader of scans, the writer, checks, splits."""
