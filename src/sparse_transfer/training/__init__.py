"""Training of all weights under a mask: the loop, what it is made of, and the state from which it goes on."""
