"""What replicator costs and what it gives, as ratios measured in one run: ``python -m tests.benchmarks --help``."""
