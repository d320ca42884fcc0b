"""What people read: report, page, terminal, trackers."""
