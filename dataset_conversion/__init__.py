"""Converters: from a dataset as it is distributed to nnU-Net's raw layout with unlabeled cases."""
