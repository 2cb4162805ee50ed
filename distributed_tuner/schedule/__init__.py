"""Pure rules of schedules: how trials stand -> what becomes of them. No Ray, no clock."""
