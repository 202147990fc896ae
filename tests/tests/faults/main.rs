//! What goes wrong in the field, one scenario a file: what must still hold meanwhile, and that
//! afterwards nothing is left of it: descriptors, tasks, rules, tracked connections, memory.
//!
//! Counts and times are scaled to seconds; with `WEFT_TEST_SCALE=full` they are those of the field.

mod shop;

mod alerts;
mod certificate_authority;
mod churn;
mod clock;
mod conntrack;
mod control_plane;
mod descriptors;
mod freeze;
mod full_pool;
mod half_closed;
mod half_open;
mod handshakes;
mod http2_abuse;
mod lossy_wire;
mod memory_pressure;
mod mtu;
mod neighbour;
mod partition;
mod ports;
mod restart;
mod rules;
mod slow_clients;
mod slow_reader;
mod uncaptured;
