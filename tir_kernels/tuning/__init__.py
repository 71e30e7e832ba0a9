"""What a search for tile sizes needs: definitions, spaces, and kernels to measure."""
