"""Proof, arranged by what it needs: nothing, one engine, two engines, the whole program."""
