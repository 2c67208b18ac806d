"""The decoder: one stack of pre-norm blocks, its KV cache, adapters, quantisation, and its folders."""
