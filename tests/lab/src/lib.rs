//! The laboratory: what the tests of heat-salt-bootstrap run against.
//!
//! Salt is real: a master, its API and minions of either LTS line, from a private directory on loopback. Only what
//! cannot be had in a test is stood in for: Heat (see [`heat`]), and peers that misbehave as real ones rarely do
//! (see [`peer`], [`faults`] and [`proxy`]).
//!
//! Everything started here ends with the process that started it, however that ends (see [`process::Guard`]), so a
//! test suite may keep one master in a static.

pub mod api;
pub mod cgroup;
pub mod chart;
pub mod faults;
pub mod harness;
pub mod heat;
pub mod http;
pub mod island;
pub mod keys;
pub mod listen;
pub mod master;
pub mod minion;
pub mod openstack;
pub mod pam;
pub mod peer;
pub mod process;
pub mod proxy;
pub mod sandbox;
pub mod schema;
pub mod site;
pub mod stall;
pub mod tls;
pub mod trace;
pub mod venv;
pub mod vm;
