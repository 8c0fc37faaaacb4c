"""A plugin for obframe: ``plugin`` is what obframe loads, ``contract`` is how it is tested."""
