"""Back ends in which people annotate, and the registry of them."""
