"""The store and its lvols: create, snapshot, clone, resize, delete, parents."""
