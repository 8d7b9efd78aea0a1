"""Text that models and reports read, as Jinja2 templates."""
