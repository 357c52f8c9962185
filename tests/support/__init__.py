"""Readers, writers and oracles that several tests share."""
