"""Which workers there are. No promise hangs on it: it is what people are shown."""
