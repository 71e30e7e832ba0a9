"""Exact attention over the pilot's lists, and the kernel of a whole prefill chunk."""
