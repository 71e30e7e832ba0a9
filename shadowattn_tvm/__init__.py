"""shadowAttn on Apache TVM: weights -> calibrate -> plan -> compile -> library -> chat."""
