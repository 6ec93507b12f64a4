//! What tests share: models that are right by being simple, ends that misbehave, and real servers.
#![allow(dead_code, reason = "shared by the tests, Spark's test and the benches, each of which uses a part")]

pub mod acls;
pub mod bank;
pub mod bucket;
pub mod certificates;
pub mod changes;
pub mod delta;
pub mod edges;
pub mod fuzz;
pub mod gateway;
pub mod history;
pub mod kafka;
pub mod kinds;
pub mod million;
pub mod model;
pub mod pgbench;
pub mod pooler;
pub mod postgres;
pub mod producer;
pub mod program;
pub mod proxy;
pub mod python;
pub mod readback;
pub mod rows;
pub mod seed;
pub mod shop;
pub mod state;
pub mod store;
pub mod stream;
pub mod terminal;
pub mod verdict;
pub mod widening;
