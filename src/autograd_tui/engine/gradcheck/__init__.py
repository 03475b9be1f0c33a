"""Gradient checks: autograd beside float64 and finite differences."""
