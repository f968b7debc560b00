"""The public scoreboard: official operator cases and known defects, by released library."""
