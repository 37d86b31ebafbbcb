"""A store as a file system: volumes and snapshots are files, xattrs and ioctls control them."""
