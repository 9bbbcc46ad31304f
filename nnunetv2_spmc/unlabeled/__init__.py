"""Unlabeled cases: where they lie, their preprocessing, leaks."""
