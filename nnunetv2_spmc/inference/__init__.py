"""Trained models: prediction of all branches, maps, ranking, export."""
