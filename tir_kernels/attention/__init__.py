"""Dense attention over the paged KV cache, and the tiles and tables the sparse one shares."""
