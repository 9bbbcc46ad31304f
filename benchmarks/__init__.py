"""Accuracy and performance, measured; not part of the installed package."""
