"""Hands with labels from disk: one sample type, one file for each data set's layout."""
