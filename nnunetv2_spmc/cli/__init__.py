"""Command-line entry points: argparse only, no logic."""
