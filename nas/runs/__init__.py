"""What a search is told and what it leaves on disk: settings, records, the run directory, its front."""
