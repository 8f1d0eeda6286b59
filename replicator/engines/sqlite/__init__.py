"""The SQLite engine: capture by plain SQL triggers in key mode, and SQLite files as sources and targets."""
