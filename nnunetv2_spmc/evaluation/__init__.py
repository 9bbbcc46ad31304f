"""Dice, Jaccard, HD95 and ASD per case and class, and the comparison of methods over seeds."""
