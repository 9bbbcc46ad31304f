"""Bad inputs for every command, and what the commands make of them."""
