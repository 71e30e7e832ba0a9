"""The estimate: quantized queries and keys, scores, pooling, the largest k."""
