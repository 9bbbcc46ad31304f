"""What a training step, the data path and prediction cost."""
