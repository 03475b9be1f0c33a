"""A traced phase as text: the position in it, its tree and graph, each operation, and what is wrong in it."""
