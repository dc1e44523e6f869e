"""Training of VGGT: losses, data rendered on the fly, the loop, and the evaluation on worlds never trained on."""
