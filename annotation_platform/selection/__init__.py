"""Selection of the images to annotate next."""
