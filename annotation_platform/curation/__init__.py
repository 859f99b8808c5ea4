"""The labels of a training set and their splits, label issues, certificates and error bars."""
