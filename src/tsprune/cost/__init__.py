"""The cost of a forecast: milliseconds, floating-point operations, threads and memory."""
