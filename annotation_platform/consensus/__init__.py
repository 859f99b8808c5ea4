"""Resolution of several annotations into one set of labels, with agreement and quality."""
