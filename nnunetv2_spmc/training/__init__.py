"""The semi-supervised base trainer and what it is made of."""
