"""What a training step is: one small object a task. The loop in `lvm_jax.training` knows only the protocol."""
