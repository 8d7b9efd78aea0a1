"""What a search leaves behind: its directory, its log, how a page reads them, the artifacts, the reviews."""
