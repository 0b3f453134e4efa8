"""Real RabbitMQ and Redis servers for the tests, the demo and the benchmarks."""
