"""What api and worker have in common: the domain, the store, the cache, the queue, the settings."""
