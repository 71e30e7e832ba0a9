"""NumPy twins of the kernels: slow, plain, and what the tests compare with."""
