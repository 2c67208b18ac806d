"""Metric states that merge, image quality (PSNR, SSIM) and the Frechet distance."""
