"""Batches of labeled and unlabeled patches."""
