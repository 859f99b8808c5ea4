"""Looking at every image: type, decoding, quality, duplicates."""
