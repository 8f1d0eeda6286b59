"""Database engines: each meets the ports for one database and knows nothing of the others or of settings."""
