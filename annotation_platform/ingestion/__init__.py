"""From wherever images come into the lake: sources, rounds, metadata."""
