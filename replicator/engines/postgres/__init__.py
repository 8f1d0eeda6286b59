"""PostgreSQL: capture by triggers, the source's horizon windows, the target's set-based apply, and the installer."""
