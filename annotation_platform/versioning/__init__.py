"""Dataset versions in git and DVC. The only package that uses either."""
