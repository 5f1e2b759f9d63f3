"""Backends for the local Triton, named as the native ones they stand in for."""
