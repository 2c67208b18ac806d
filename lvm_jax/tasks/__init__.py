"""What a training step is: one small object a task; the loop in `lvm_jax.training` knows only the protocol."""
