"""The doors to databases: clients with deadlines, and their errors translated."""
