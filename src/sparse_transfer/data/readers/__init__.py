"""One reader per dataset family: from a folder to file lists, without decoding a picture."""
