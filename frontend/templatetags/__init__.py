"""Template tags of the pages. `remit` is the library; its neighbours are the plain functions behind it."""
