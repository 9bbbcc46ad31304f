"""What all parts of the package share and that knows none of them."""
