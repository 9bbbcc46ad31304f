"""Accuracy on real scans: trainings of a queue, their results, tables of these."""
