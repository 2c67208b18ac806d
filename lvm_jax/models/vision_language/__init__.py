"""Vision-language models: towers, their projectors and a decoder as one model (Vary, GOT-OCR2)."""
