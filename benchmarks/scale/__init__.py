"""How what a run does beside reading and writing instances grows with the archive."""
