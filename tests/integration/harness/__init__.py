"""What the integration and chaos tests share: servers, fake models, engines in threads, pools as processes."""
