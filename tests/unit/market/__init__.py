"""The market room: calendar, import, snapshots, checks."""
