"""Development without servers: ``amqflow dev``, ``amqflow broker`` and ``app.running()``."""
