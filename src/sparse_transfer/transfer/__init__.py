"""The product's verbs, each a page that calls the rooms below in order."""
