"""From wherever pictures come into the lake: sources, rounds, metadata."""
