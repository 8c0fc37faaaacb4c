"""obframe: an order-book recorder with a plugin for every part."""
