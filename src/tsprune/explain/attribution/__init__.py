"""Attribution: which component wrote which part of the residual stream, and of the forecast."""
