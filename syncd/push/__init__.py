"""The push flow: operations from the queue are applied to Albert."""
