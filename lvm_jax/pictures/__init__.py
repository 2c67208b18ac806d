"""Pictures as arrays: decoding, resizing, annotation maps and their inverses, the geometry of COCO."""
