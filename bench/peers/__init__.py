"""What lvolfs is measured against, each started with its best documented settings."""
