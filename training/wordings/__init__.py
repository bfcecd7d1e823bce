"""How people may ask: frames by type of question, a small grammar, and rough typing."""
