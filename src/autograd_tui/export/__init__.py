"""A run as a file: one module for each format."""
