"""What a training did: its files, uncertainty maps, ranking of unlabeled cases, report page."""
