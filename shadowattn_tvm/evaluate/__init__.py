"""Evaluation on the compiled library: what shadowAttn costs, measured against the dense model."""
