"""Work for outside vendors: packages go out, annotations come back in files."""
