//! `waypoint`: reads the configuration and runs the proxy.

fn main() {}
