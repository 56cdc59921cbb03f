"""What was done to each loop, what not and why: as text, tables and pictures."""
