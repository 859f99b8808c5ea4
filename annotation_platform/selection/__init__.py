"""Which images are worth a person's time."""
