"""The on-disk format: superblock, masks, metadata pages, reading, replay, check."""
