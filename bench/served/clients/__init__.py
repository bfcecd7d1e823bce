"""How contenders are spoken to: each over its own network interface, all with the same call."""
