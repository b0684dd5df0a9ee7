//! What the proxy and the agent show to machines.
