"""What goes into a training set, and into which split."""
