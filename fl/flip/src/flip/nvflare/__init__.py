"""What only NVFLARE apps use."""
