"""What was run and what came out: identities, records, their store, trackers and the results table."""
