"""One module a group of resources: views that only translate."""
