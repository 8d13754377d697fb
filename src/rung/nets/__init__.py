"""Bodies and heads, one family a file. Import the file you need: nothing is imported here, so that this stays light."""
