"""Where outcomes are kept and waited for: the stores behind ``amqflow.abc.ResultStore``."""
