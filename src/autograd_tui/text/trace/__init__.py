"""A traced phase as text: the walk through it, its tree and graph, each operation, and what is wrong in it."""
