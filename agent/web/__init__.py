"""`agent serve`: the runs in a browser, live, with review and with searches that are started there."""
