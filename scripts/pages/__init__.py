"""Pages of the documentation that are generated: each module has `page()`, which returns Markdown."""
