"""A user's own data: tables of any layout and file format, as suites of forecasting windows."""
