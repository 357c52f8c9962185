"""``python -m sparse_transfer`` is the command ``sparse-transfer``."""

from sparse_transfer.cli.main import main

main()
