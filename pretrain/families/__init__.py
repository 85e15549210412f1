"""One file per family: the upstream model at bundled size, and its training objective."""
