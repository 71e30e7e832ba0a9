"""Sparse decode: an INT8 shadow of K kept beside the pages, and the kernels that write, carry and
read it."""
