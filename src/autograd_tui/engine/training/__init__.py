"""Training itself on real PyTorch: the loop, its numbers, and the trainer that gives frames."""
