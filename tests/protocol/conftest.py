"""How the property tests run: on a shared machine an example may take its time."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "protocol", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60
)
settings.load_profile("protocol")
