"""One module per kind of cluster; each implements the protocol ClusterDriver."""
