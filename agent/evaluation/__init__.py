"""One evaluation: what a call carries, who runs it, the free check, the workbench that starts isolation and slots."""
