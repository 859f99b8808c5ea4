"""Probing and cleaning images: type, decoding, quality, duplicates, masking, embeddings."""
