"""Which coins should move between addresses of ours? Pure."""
