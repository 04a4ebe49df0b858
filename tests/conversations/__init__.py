"""Legal conversations, made at random, played direct and through the proxy: every answer must be the same."""
