"""Vision towers: SAM's ViTDet with the convolutions that merge its tokens, CLIP's vision tower, and projectors."""
