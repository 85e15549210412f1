"""Attribution: the components that wrote each part of the residual stream, and of the forecast."""
