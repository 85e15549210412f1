"""The laboratory: small models trained alike but for one thing, to tell what makes layers redundant."""
