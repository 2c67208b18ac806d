"""Recipes of data sets: each file has a `get_config(arg)` that `data_pipelines.build.recipe.from_config` reads."""
