"""Raw layout, preprocessing and loading of labeled and unlabeled cases."""
