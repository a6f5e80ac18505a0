"""Layout of online state in a key store."""
