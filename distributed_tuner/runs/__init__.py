"""Run directories: opened, resumed, evaluated, used for predictions."""
