"""The tokenizer: a VQGAN, its quantizer, its discriminator and its perceptual loss."""
