"""What happens in the archive, as messages in queues say it: images that are new, changed or gone, bags registered."""
