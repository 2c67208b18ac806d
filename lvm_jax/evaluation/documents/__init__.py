"""What models that read documents are scored on."""
