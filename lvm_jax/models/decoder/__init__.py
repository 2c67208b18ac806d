"""The decoder: a stack of pre-norm blocks, its KV cache, adapters, quantisation, and its folder."""
