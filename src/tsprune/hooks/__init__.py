"""Hooks on a running model: ablation, recorded activations, attention maps and the residual stream."""
