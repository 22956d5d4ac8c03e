"""`python -m demo`: five real photos, made noisy, restored through the real service, and measured."""
