"""The recipe behind the bundled checkpoints: one generator, one loop, one file per objective."""
