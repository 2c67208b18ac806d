"""The tab of models that read pages: drop one, and read what it says."""
