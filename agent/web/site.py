"""What every page of the server says: its folder, its form value, and whether anything can be changed."""

from __future__ import annotations

from dataclasses import dataclass

from agent.report.page import template
from agent.web.access import Access
from agent.web.shelf import Shelf


@dataclass(frozen=True)
class Site:
    """One server."""

    shelf: Shelf
    access: Access
    read_only: bool = False

    @property
    def folder(self) -> str:
        """The folder of the runs."""
        return str(self.shelf.runs)

    @property
    def csrf(self) -> str:
        """See `Access.csrf`."""
        return self.access.csrf

    def message(self, title: str, message: str, *, back: str = "/", back_words: str = "Back to the runs") -> str:
        """A page with one message."""
        page: str = template("web_message.html.j2").render(
            site=self, title=title, message=message, back=back, back_words=back_words
        )
        return page
