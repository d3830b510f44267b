"""Devices other than this machine: how an artifact gets there, runs, and its figures come back."""
