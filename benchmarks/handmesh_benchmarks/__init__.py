"""Latency of handmesh, measured under one protocol and reported with what was measured on what."""
