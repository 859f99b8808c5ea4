"""Label Studio as a labelling back end."""
