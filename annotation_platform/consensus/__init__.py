"""One answer from several."""
