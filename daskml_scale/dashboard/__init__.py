"""What watches runs: progress fold, scheduler plugin, /workflow page, publisher. Never decides anything."""
