"""The tab of models that answer from examples: pictures with masks or words, and a query."""
