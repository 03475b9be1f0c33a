"""Tables of parameters, gradients, buffers and layers."""
