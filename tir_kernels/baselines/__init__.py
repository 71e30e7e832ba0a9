"""What shadowAttn is compared with, in the same slot and of the same parts."""
