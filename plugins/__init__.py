"""The plugins that come with obframe; loaded through entry points like anybody's."""
