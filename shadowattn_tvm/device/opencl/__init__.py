"""An OpenCL device, as it is found through pyopencl."""
