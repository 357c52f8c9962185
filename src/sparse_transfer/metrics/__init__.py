"""How well predictions fit labels, and how sure one may be of it."""
