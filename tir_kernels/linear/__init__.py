"""Matrix products with float and 4-bit weights."""
