"""How fast, how small, how soon: both agents measured beside each other, in turns, on one machine."""
