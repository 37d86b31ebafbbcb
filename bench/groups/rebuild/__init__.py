"""A replica that is out of date is brought up to date: by lvolfs, and by what else can do it."""
