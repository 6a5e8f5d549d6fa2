"""Meshes, sharding, several processes, and what each process does at its start."""
