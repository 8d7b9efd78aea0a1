"""The search itself: set-up, loop, toolbox, screening, summary, outcome."""
