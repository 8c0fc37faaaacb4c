"""A plugin for obframe: what obframe loads is ``plugin``."""
