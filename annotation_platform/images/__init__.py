"""Looking at every picture: type, decoding, quality, duplicates."""
