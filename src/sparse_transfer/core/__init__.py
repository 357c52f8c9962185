"""What every room needs and none owns: errors, files, canonical JSON, registries, progress, threads."""
